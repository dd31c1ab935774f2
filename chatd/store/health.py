"""What the health report reads of the database: each section one statement."""

import time
from dataclasses import dataclass
from functools import cache
from typing import Any

from chatd.core.health import DatabaseFacts, ProviderFacts, QueueFacts, ServerFacts
from chatd.store import hot
from chatd.store.db import Database
from chatd.store.keys import SECRET_COLUMNS
from chatd.store.migrations import head
from chatd.store.secrets import KeyRing, Tampered, UnknownKey

SERVER_SECRETS = tuple(each.column for each in SECRET_COLUMNS if each.table == "mcp_server_configs")

LATELY = 100
"""Lines of a server among which one that tells how many tools it has is looked for."""

_DATABASE = """
SELECT current_setting('server_version') AS version,
    (SELECT version_num FROM alembic_version) AS migration
"""

_QUEUE = f"""
SELECT count(*) FILTER (WHERE status = 'pending') AS pending,
    coalesce(extract(epoch FROM clock_timestamp()
        - min(pending_at) FILTER (WHERE status = 'pending')), 0)::float8 AS oldest_pending_s,
    count(*) FILTER (WHERE status IN ('running', 'interrupting')) AS running,
    count(*) FILTER (WHERE status = 'requires_action') AS parked,
    (SELECT claims_paused FROM policy_state) AS paused
FROM turns WHERE status IN {hot.ACTIVE}
"""

_SERVERS = f"""
SELECT s.id, s.slug, s.version, {", ".join(f"s.{c}, s.{c}_key_id" for c in SERVER_SECRETS)},
    tried.outcome, tried.error_code, tried.user_id IS NOT NULL AS of_user,
    reached.at AS last_connected_at,
    (SELECT lately.tool_count FROM (SELECT at, tool_count FROM connection_log
        WHERE server_id = s.id ORDER BY at DESC LIMIT {LATELY}) lately
        WHERE lately.tool_count IS NOT NULL ORDER BY lately.at DESC LIMIT 1) AS tools
FROM mcp_server_configs s
LEFT JOIN LATERAL (SELECT outcome, error_code, user_id FROM connection_log
    WHERE server_id = s.id AND outcome <> 'disconnected' ORDER BY at DESC LIMIT 1) tried ON true
LEFT JOIN LATERAL (SELECT at FROM connection_log
    WHERE server_id = s.id AND outcome = 'connected' ORDER BY at DESC LIMIT 1) reached ON true
WHERE s.enabled ORDER BY s.slug
"""

_PROVIDERS = """
SELECT id, display_name, api_key, api_key_key_id,
    provider = 'openai' AND api_key IS NULL AS lacks_key
FROM model_providers WHERE enabled AND deleted_at IS NULL ORDER BY display_name
"""


@dataclass(frozen=True, slots=True)
class Configured:
    """A server and the version of its config, which names its breaker."""

    facts: ServerFacts
    version: int


async def read_database(db: Database) -> DatabaseFacts:
    started = time.monotonic()
    row = await db.fetch_one(_DATABASE)
    assert row is not None
    latency_ms = round((time.monotonic() - started) * 1000, 1)
    return DatabaseFacts(latency_ms, row["version"], row["migration"], _newest())


async def read_queue(db: Database) -> QueueFacts:
    row = await db.fetch_one(_QUEUE)
    assert row is not None
    return QueueFacts(**row)


async def read_servers(db: Database, keys: KeyRing) -> list[Configured]:
    """Enabled ones, by slug."""
    return [
        Configured(
            ServerFacts(
                id=row["id"],
                slug=row["slug"],
                unreadable=tuple(
                    why
                    for column in SERVER_SECRETS
                    if (why := _unreadable(keys, "mcp_server_configs", column, row))
                ),
                outcome=row["outcome"],
                error_code=row["error_code"] or "",
                of_user=row["of_user"],
                last_connected_at=row["last_connected_at"],
                tools=row["tools"],
            ),
            row["version"],
        )
        for row in await db.fetch(_SERVERS)
    ]


async def read_providers(db: Database, keys: KeyRing) -> list[ProviderFacts]:
    """Enabled ones, by name."""
    return [
        ProviderFacts(
            row["id"],
            row["display_name"],
            row["lacks_key"],
            _unreadable(keys, "model_providers", "api_key", row),
        )
        for row in await db.fetch(_PROVIDERS)
    ]


def _unreadable(keys: KeyRing, table: str, column: str, row: Any) -> str | None:
    """Why it cannot be decrypted."""
    if row[column] is None:
        return None
    try:
        keys.decrypt(
            row[column], row[f"{column}_key_id"], table=table, column=column, row_id=row["id"]
        )
    except (UnknownKey, Tampered) as error:
        return error.message
    return None


@cache
def _newest() -> str:
    return head()
