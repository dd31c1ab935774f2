"""Reading the audit log: changes, approvals, tool calls and connections as one list."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import asyncpg
from sqlalchemy import text

from chatd.core.auditing import LINE_KINDS, AuditCursor, AuditFilters, LineKind
from chatd.core.errors import BadRequest
from chatd.store.db import Database, fetch_within

PATIENCE_MS = 5000
"""What finds nothing in this time asks for too much of a long log."""

SHOWN_ARGUMENTS_BYTES = 8192
"""Longer arguments are told by their hash alone: what is cut cannot be redacted surely."""

_UUID = "'^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'"
_ABOUT = """((l.target_type, l.target_id) = ('user', ?::uuid::text)
    OR l.target_type = 'api_token' AND coalesce(l.after, l.before)->>'user_id' = ?::uuid::text
    OR l.target_type = 'group' AND (coalesce(l.after, l.before)->>'user_id' = ?::uuid::text
        OR l.before->'member_ids' @> to_jsonb(?::uuid::text))
    OR l.target_type = 'turn' AND coalesce(l.after, l.before)->>'owner_id' = ?::uuid::text)"""
"""By the index of target types; `erasing` redacts what is found here."""

_PATIENCE = text("SELECT set_config('statement_timeout', CAST(:ms AS text), true)")


@dataclass(frozen=True, slots=True)
class _Source:
    """`matches`: the SQL of each filter that lines of this kind can match, with ? for its value."""

    kind: LineKind
    table: str
    at: str
    id: str
    only: str
    matches: Mapping[str, str]


_CHANGES = _Source(
    "change",
    "audit_log l",
    "l.at",
    "l.id",
    "l.target_type <> 'approval'",
    {
        "actor": "l.actor_id = ?",
        "user": _ABOUT,
        "chat": "(l.target_type, l.target_id) = ('chat', ?::uuid::text)",
        "server": "(l.target_type, l.target_id) = ('mcp_server', ?::uuid::text)",
        "action": "l.action = ?",
        "target_type": "l.target_type = ?",
        "target_id": "l.target_id = ?",
    },
)

_APPROVALS = _Source(
    "approval",
    "audit_log l",
    "l.at",
    "l.id",
    "l.target_type = 'approval'",
    {
        "actor": "l.actor_id = ?",
        "user": "l.actor_id = ?",
        "chat": "l.chat_id = ?",
        "server": "l.server_id = ?",
        "action": "l.action = ?",
        "target_type": "l.target_type = ?",
        "target_id": "l.target_id = ?",
        "tool": "l.tool = ?",
        "outcome": "l.action = CASE ?::text WHEN 'approved' THEN 'approve'"
        " WHEN 'denied' THEN 'deny' END",
    },
)

_CALLS = _Source(
    "call",
    "tool_calls l",
    "l.intended_at",
    "l.id",
    "true",
    {
        "actor": "l.user_id = ?",
        "user": "l.user_id = ?",
        "chat": "l.chat_id = ?",
        "server": "l.server_id = ?",
        "action": "?::text = 'call'",
        "target_type": "?::text = 'tool_call'",
        "target_id": "l.id = CASE WHEN ?::text ~ '^[0-9]{1,18}$' THEN ?::text::bigint END",
        "tool": "(l.original_name = ? OR l.tool_name = ?)",
        "outcome": "l.state = ?",
    },
)

_CONNECTIONS = _Source(
    "connection",
    "connection_log l",
    "l.at",
    "l.id",
    "true",
    {
        "user": "l.user_id = ?",
        "server": "l.server_id = ?",
        "action": "?::text = CASE l.outcome WHEN 'disconnected' THEN 'disconnect'"
        " ELSE 'connect' END",
        "target_type": "?::text = 'mcp_server'",
        "target_id": f"l.server_id = CASE WHEN ?::text ~ {_UUID} THEN ?::text::uuid END",
        "outcome": "l.outcome = ?",
    },
)

_SOURCES = (_CHANGES, _APPROVALS, _CALLS, _CONNECTIONS)
assert tuple(source.kind for source in _SOURCES) == LINE_KINDS

_APART = {"kind", "since", "until"}

_SERVER_ID = f"""coalesce(j.server_id, c.server_id, a.server_id,
    CASE WHEN a.target_type = 'mcp_server' AND a.target_id ~ {_UUID} THEN a.target_id::uuid END)"""

_LINES = f"""
SELECT p.rank, p.id, p.at, a.action, a.actor_id, a.target_type, a.target_id, a.before, a.after,
    a.request_id, coalesce(j.user_id, c.user_id) AS user_id, coalesce(j.chat_id, a.chat_id)
    AS chat_id, {_SERVER_ID} AS server_id, coalesce(c.server_slug, s.slug) AS server,
    coalesce(nullif(j.original_name, ''), j.tool_name, nullif(a.tool, '')) AS tool,
    CASE WHEN octet_length(j.arguments) <= {SHOWN_ARGUMENTS_BYTES} THEN j.arguments END
    AS arguments, coalesce(encode(sha256(convert_to(j.arguments, 'UTF8')), 'hex'),
        j.arguments_sha256) AS arguments_sha256, coalesce(j.state, c.outcome) AS outcome,
    coalesce(c.duration_ms, round(extract(epoch FROM j.finished_at - j.sent_at) * 1000)::bigint)
    AS duration_ms, c.error_code, c.tool_count, c.process
FROM page p
    LEFT JOIN audit_log a ON p.rank < 2 AND a.id = p.id
    LEFT JOIN tool_calls j ON p.rank = 2 AND j.id = p.id
    LEFT JOIN connection_log c ON p.rank = 3 AND c.id = p.id
    LEFT JOIN mcp_server_configs s ON s.id = {_SERVER_ID}
ORDER BY p.at DESC, p.rank DESC, p.id DESC
"""


async def read_lines(
    db: Database,
    filters: AuditFilters,
    before: AuditCursor | None,
    limit: int,
    *,
    patience_ms: int = PATIENCE_MS,
) -> Sequence[asyncpg.Record]:
    """The newest lines `before` the cursor. Raises `BadRequest` when that takes too long.

    One statement, so all kinds are read at one moment and no line falls between two pages.
    """
    sql, values = page_query(filters, before, limit)
    if not sql:
        return []
    try:
        async with db.statements() as connection:
            await connection.execute(_PATIENCE, {"ms": str(patience_ms)})
            return await fetch_within(connection, sql, *values)
    except asyncpg.QueryCanceledError:
        raise BadRequest(
            "This would look through too many lines.",
            detail="Ask for less time with `from` and `to`, or for one kind of lines.",
        ) from None


def page_query(
    filters: AuditFilters, before: AuditCursor | None, limit: int
) -> tuple[str, list[Any]]:
    """The statement and its values; no statement when no kind of lines can match."""
    given = {
        field.name: value
        for field in fields(filters)
        if field.name not in _APART and (value := getattr(filters, field.name)) is not None
    }
    values: list[Any] = []
    parts = [
        _part(source, rank, given, filters, before, limit, values)
        for rank, source in enumerate(_SOURCES)
        if filters.kind in {None, source.kind} and given.keys() <= source.matches.keys()
    ]
    if not parts:
        return "", []
    newest = "ORDER BY at DESC, rank DESC, id DESC LIMIT"
    page = f"SELECT * FROM ({' UNION ALL '.join(parts)}) AS parts {newest} {limit:d}"
    return f"WITH page AS MATERIALIZED ({page}) {_LINES}", values


def _part(
    source: _Source,
    rank: int,
    given: Mapping[str, Any],
    filters: AuditFilters,
    before: AuditCursor | None,
    limit: int,
    values: list[Any],
) -> str:
    """The newest lines of one kind, by their keys alone."""

    def with_value(sql: str, value: Any) -> str:
        values.append(value)
        return sql.replace("?", f"${len(values)}")

    wanted = [source.only]
    wanted += [with_value(source.matches[name], value) for name, value in given.items()]
    if filters.since is not None:
        wanted.append(with_value(f"{source.at} >= ?", filters.since))
    if filters.until is not None:
        wanted.append(with_value(f"{source.at} < ?", filters.until))
    if before is not None:
        wanted.append(with_value(f"{source.at} {_until(rank, before)} ?", before.at))
        if source.kind == before.kind:
            wanted.append(
                with_value(f"({source.at} < ? OR ", before.at)
                + with_value(f"{source.id} < ?)", before.id)
            )
    order = f"ORDER BY {source.at} DESC, {source.id} DESC LIMIT {limit:d}"
    return (
        f"(SELECT {rank:d} AS rank, {source.id} AS id, {source.at} AS at FROM {source.table}"
        f" WHERE {' AND '.join(wanted)} {order})"
    )


def _until(rank: int, before: AuditCursor) -> Literal["<", "<="]:
    """Of one moment, kinds with a higher rank come first."""
    return "<=" if rank <= LINE_KINDS.index(before.kind) else "<"
