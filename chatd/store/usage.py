"""The ledger of model calls: one line each, added up for users, chats and administrators.

`step` lines are written by the statements that commit the messages (`hot.committing`).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from chatd.core.usage import Spent
from chatd.store.chats import require_chat
from chatd.store.db import Database, dump

TOP_CHATS = 20

_TOKENS = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "reasoning_tokens",
    "cache_creation_tokens",
    "cache_read_tokens",
)

_COUNTS = ("priced", "unpriced", "estimated")

RECORD = f"""
INSERT INTO usage_entries (owner_id, chat_id, turn_id, kind, model_config_id, estimated,
    cost_micros, {", ".join(_TOKENS)})
SELECT s.owner_id, s.chat_id, s.turn_id, s.kind, s.model_config_id, s.estimated, s.cost_micros,
    {", ".join(f"s.{name}" for name in _TOKENS)}
FROM jsonb_to_recordset($1::jsonb) AS s(owner_id uuid, chat_id uuid, turn_id uuid, kind text,
    model_config_id uuid, estimated boolean, cost_micros bigint,
    {", ".join(f"{name} bigint" for name in _TOKENS)})
WHERE $2::float8 IS NULL OR NOT EXISTS (
    SELECT 1 FROM usage_entries e WHERE e.chat_id = s.chat_id AND e.turn_id = s.turn_id
        AND e.kind = 'lost' AND e.at > clock_timestamp() - make_interval(secs => $2))
"""

RECORDED = """
SELECT 1 FROM chat_messages
WHERE turn_id = $1 AND step = $2 AND position = 0 AND usage IS NOT NULL
"""

RECORD_EXPIRED = text(
    """WITH lost AS (
        SELECT t.owner_id, t.chat_id, t.id, t.model_config_id, coalesce((
            SELECT e.total_tokens FROM usage_entries e
            WHERE e.chat_id = t.chat_id AND e.kind = 'step' ORDER BY e.id DESC LIMIT 1),
            octet_length(t.content::text) / 4) AS tokens
        FROM turns t WHERE t.id = :turn AND NOT EXISTS (SELECT 1 FROM tool_calls j
            WHERE j.turn_id = t.id AND j.state IN ('intended', 'sent', 'waiting'))
    )
    INSERT INTO usage_entries (owner_id, chat_id, turn_id, kind, model_config_id, input_tokens,
        total_tokens, cost_micros, estimated)
    SELECT lost.owner_id, lost.chat_id, lost.id, 'lost', lost.model_config_id, lost.tokens,
        lost.tokens, round(lost.tokens * (m.options->'cost'->>'input')::numeric), true
    FROM lost LEFT JOIN model_configs m ON m.id = lost.model_config_id"""
)
"""For a turn whose worker is lost, before it is given to another: once per lease, under its lock.

A worker lost among tool calls has lost no model call.
"""

_SUMS = f"""
    {", ".join(f"coalesce(sum(e.{name}), 0)::bigint AS {name}" for name in _TOKENS)},
    sum(e.cost_micros)::bigint AS total_cost_micros, count(e.cost_micros) AS priced,
    count(e.id) - count(e.cost_micros) AS unpriced, count(*) FILTER (WHERE e.estimated) AS estimated
"""

_GROUPS = """
SELECT grouping(e.kind) AS no_kind, e.kind, grouping(e.model_config_id) AS no_model,
    e.model_config_id, max(m.model) AS model
"""

CHAT_USAGE = f"""
{_GROUPS}, {_SUMS}
FROM usage_entries e LEFT JOIN model_configs m ON m.id = e.model_config_id
WHERE e.chat_id = $1 GROUP BY GROUPING SETS ((), (e.kind), (e.model_config_id))
ORDER BY e.kind, total_cost_micros DESC NULLS LAST, total_tokens DESC, e.model_config_id
"""

USER_USAGE = f"""
{_GROUPS}, grouping(e.day) AS no_day, e.day, {_SUMS}
FROM (SELECT x.*, (x.at AT TIME ZONE 'UTC')::date AS day FROM usage_entries x
    WHERE x.owner_id = $1 AND x.at >= $2 AND x.at < $3) AS e
    LEFT JOIN model_configs m ON m.id = e.model_config_id
GROUP BY GROUPING SETS ((), (e.kind), (e.model_config_id), (e.day))
ORDER BY e.day, e.kind, total_cost_micros DESC NULLS LAST, total_tokens DESC, e.model_config_id
"""

USER_CHATS = f"""
SELECT e.chat_id, max(c.title) AS title, {_SUMS}
FROM usage_entries e LEFT JOIN chats c ON c.id = e.chat_id AND c.deleted_at IS NULL
WHERE e.owner_id = $1 AND e.at >= $2 AND e.at < $3
GROUP BY e.chat_id
ORDER BY total_cost_micros DESC NULLS LAST, total_tokens DESC, e.chat_id LIMIT {TOP_CHATS}
"""

USERS_USAGE = f"""
SELECT u.id AS user_id, u.username, u.name, u.spend_limit_micros, {_SUMS}
FROM users u LEFT JOIN usage_entries e
    ON e.owner_id = u.id AND e.at >= $1 AND e.at < $2
WHERE strpos(u.username, lower($3)) > 0
GROUP BY u.id
ORDER BY total_cost_micros DESC NULLS LAST, total_tokens DESC, u.username LIMIT $4 OFFSET $5
"""

COUNT_USERS = "SELECT count(*) AS users FROM users u WHERE strpos(u.username, lower($1)) > 0"


async def record_usage(
    db: Database, entries: Sequence[Spent], *, unless_lost_since_s: float | None = None
) -> None:
    """Write lines. With `unless_lost_since_s`: not for a turn that got a `lost` line in the last
    so many seconds, because a sweeper has then already counted the call."""
    await db.fetch(RECORD, dump([_line(entry) for entry in entries]), unless_lost_since_s)


async def is_recorded(db: Database, turn_id: UUID, step: int) -> bool:
    """Whether the answer of this step is a message that the ledger has a line for."""
    return await db.fetch_one(RECORDED, turn_id, step) is not None


async def chat_usage(db: Database, owner_id: UUID, chat_id: UUID) -> Any:
    """Raises `NotFound` also for somebody else's chat."""
    await require_chat(db, owner_id, chat_id)
    rows = await db.fetch(CHAT_USAGE, chat_id)
    return {"chat_id": str(chat_id), **_grouped(rows)}


async def user_usage(db: Database, user_id: UUID, start: datetime, end: datetime) -> Any:
    """What one user has spent from `start` until before `end`."""
    rows = await db.fetch(USER_USAGE, user_id, start, end)
    days = [row for row in rows if not row["no_day"]]
    chats = await db.fetch(USER_CHATS, user_id, start, end)
    return {
        **_grouped([row for row in rows if row["no_day"]]),
        "by_day": [{"date": row["day"].isoformat(), **_sums(row)} for row in days],
        "by_chat": [
            {"chat_id": str(row["chat_id"]), "title": row["title"], **_sums(row)} for row in chats
        ],
    }


async def users_usage(
    db: Database, start: datetime, end: datetime, *, username: str, limit: int, offset: int
) -> Any:
    """Everybody, who spent most first."""
    rows = await db.fetch(USERS_USAGE, start, end, username, limit, offset)
    count = await db.fetch_one(COUNT_USERS, username)
    return {
        "users": [
            {
                "user_id": str(row["user_id"]),
                "username": row["username"],
                "name": row["name"],
                "spend_limit_micros": row["spend_limit_micros"],
                **_sums(row),
            }
            for row in rows
        ],
        "count": count["users"] if count is not None else 0,
    }


def _grouped(rows: Sequence[Any]) -> dict[str, Any]:
    """The total, by kind and by model, of a statement with these grouping sets."""
    (total,) = (row for row in rows if row["no_kind"] and row["no_model"])
    return {
        **_sums(total),
        "by_kind": [{"kind": row["kind"], **_sums(row)} for row in rows if not row["no_kind"]],
        "by_model": [
            {
                "model_config_id": str(row["model_config_id"]) if row["model_config_id"] else None,
                "model": row["model"],
                **_sums(row),
            }
            for row in rows
            if not row["no_model"]
        ],
    }


def _sums(row: Any) -> dict[str, Any]:
    return {name: row[name] for name in (*_TOKENS, "total_cost_micros", *_COUNTS)}


def _line(entry: Spent) -> dict[str, Any]:
    return {
        "owner_id": str(entry.owner_id),
        "chat_id": str(entry.chat_id),
        "turn_id": str(entry.turn_id) if entry.turn_id else None,
        "kind": entry.kind,
        "model_config_id": str(entry.model_config_id) if entry.model_config_id else None,
        "estimated": entry.estimated,
        "cost_micros": entry.cost_micros,
        **entry.usage,
    }
