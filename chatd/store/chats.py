"""Reading chats, messages and turns for their owner; everything else is not found."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from chatd.core.errors import NotFound
from chatd.store import hot
from chatd.store.db import Database, dump, load
from chatd.store.items import ACTIVE_STATUS, OPEN_ITEMS
from chatd.store.views import message_view, queued_view, stored_chat_view, turn_view

CHAT_ROWS = f"""
SELECT {hot.CHAT_COLUMNS}, {ACTIVE_STATUS}, ended.status AS last_status,
    ended.error AS last_error,
    EXISTS (SELECT 1 FROM chat_messages m WHERE m.chat_id = c.id AND m.role = 'assistant'
        AND NOT m.deleted AND m.id > coalesce(c.last_read_message_id, 0)) AS has_unread,
    (SELECT jsonb_agg(jsonb_build_object('id', f.id, 'name', f.name, 'media_type', f.media_type,
        'size', f.size, 'created_at', f.created_at) ORDER BY l.created_at, f.id)
        FROM chat_files l JOIN files f ON f.id = l.file_id
        WHERE l.chat_id = c.id AND f.kind IN ('upload', 'plan')) AS files
FROM chats c
    LEFT JOIN turns active ON active.chat_id = c.id AND active.status IN {hot.ACTIVE}
    LEFT JOIN LATERAL (SELECT e.status, e.error FROM turns e
        WHERE e.chat_id = c.id AND e.finished_at IS NOT NULL AND e.user_message_id IS NOT NULL
        ORDER BY e.position DESC LIMIT 1) AS ended ON true
"""

CHATS = f"{CHAT_ROWS} WHERE c.owner_id = $1 AND c.deleted_at IS NULL"

MESSAGE_COLUMNS = """
    m.id, m.chat_id, m.turn_id, m.created_by, m.model_config_id, m.created_at, m.role, m.content,
    m.usage, m.context_limit, m.total_cost_micros
"""

USAGE = """
    (SELECT jsonb_build_object(
        'input_tokens', coalesce(sum((m.usage->>'input_tokens')::bigint), 0),
        'output_tokens', coalesce(sum((m.usage->>'output_tokens')::bigint), 0),
        'total_tokens', coalesce(sum((m.usage->>'total_tokens')::bigint), 0),
        'reasoning_tokens', coalesce(sum((m.usage->>'reasoning_tokens')::bigint), 0),
        'cache_creation_tokens', coalesce(sum((m.usage->>'cache_creation_tokens')::bigint), 0),
        'cache_read_tokens', coalesce(sum((m.usage->>'cache_read_tokens')::bigint), 0),
        'total_cost_micros', sum(m.total_cost_micros))
    FROM chat_messages m WHERE m.turn_id = t.id) AS turn_usage
"""

QUEUE = f"""
SELECT {hot.TURN_COLUMNS} FROM turns t WHERE t.chat_id = $1 AND t.status = 'queued'
ORDER BY t.position
"""

_OWNED = "SELECT 1 FROM chats WHERE id = $1 AND owner_id = $2 AND deleted_at IS NULL"


async def get_chat(db: Database, owner_id: UUID, chat_id: UUID) -> Any:
    """With all chats below it. Raises `NotFound` also for somebody else's chat."""
    row = await db.fetch_one(f"{CHATS} AND c.id = $2", owner_id, chat_id)
    if row is None:
        raise NotFound
    children = await _children(db, owner_id, [chat_id], None)
    return {**stored_chat_view(row), "children": children.get(str(chat_id), [])}


async def list_chats(
    db: Database,
    owner_id: UUID,
    *,
    limit: int,
    offset: int = 0,
    after_id: UUID | None = None,
    archived: bool | None = None,
    labels: Mapping[str, str] | None = None,
    search: str = "",
) -> list[Any]:
    """Root chats, latest change first, with those below them that are archived or not alike.

    `after_id` is the last chat of the page before.
    """
    rows = await db.fetch(
        f"""{CHATS} AND c.parent_chat_id IS NULL
            AND ($4::boolean IS NULL OR c.archived = $4)
            AND c.labels @> $5::jsonb
            AND ($6::text = '' OR c.title ILIKE '%' || $6 || '%')
            AND ($7::uuid IS NULL OR (c.updated_at, c.id) < (
                SELECT a.updated_at, a.id FROM chats a WHERE a.id = $7 AND a.owner_id = $1))
        ORDER BY c.updated_at DESC, c.id DESC LIMIT $2 OFFSET $3""",
        owner_id,
        limit,
        offset,
        archived,
        dump(dict(labels or {})),
        _like(search),
        after_id,
    )
    children = await _children(db, owner_id, [row["id"] for row in rows], archived)
    return [{**stored_chat_view(row), "children": children.get(str(row["id"]), [])} for row in rows]


async def _children(
    db: Database, owner_id: UUID, roots: Sequence[UUID], archived: bool | None
) -> dict[str, list[Any]]:
    """Oldest first, by the id of their root."""
    rows = await db.fetch(
        f"""{CHATS} AND c.root_chat_id = ANY ($2::uuid[])
            AND ($3::boolean IS NULL OR c.archived = $3)
        ORDER BY c.created_at, c.id""",
        owner_id,
        list(roots),
        archived,
    )
    children: dict[str, list[Any]] = {}
    for row in rows:
        children.setdefault(str(row["root_chat_id"]), []).append(stored_chat_view(row))
    return children


def _like(search: str) -> str:
    """The search text with LIKE's own signs taken literally."""
    return search.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


async def list_messages(
    db: Database,
    owner_id: UUID,
    chat_id: UUID,
    *,
    before_id: int | None = None,
    after_id: int | None = None,
    limit: int = 50,
) -> Any:
    """Newest first; oldest first when only `after_id` is given; the queue only without a cursor."""
    await require_chat(db, owner_id, chat_id)
    ascending = after_id is not None and before_id is None
    order = "ASC" if ascending else "DESC"
    rows = await db.fetch(
        f"""SELECT {MESSAGE_COLUMNS} FROM chat_messages m
        WHERE m.chat_id = $1 AND NOT m.deleted AND m.visibility <> 'model'
            AND ($2::bigint IS NULL OR m.id < $2) AND ($3::bigint IS NULL OR m.id > $3)
        ORDER BY m.id {order} LIMIT $4""",
        chat_id,
        before_id,
        after_id,
        limit + 1,
    )
    queue = [] if before_id or after_id else await db.fetch(QUEUE, chat_id)
    return {
        "messages": [message_view(row) for row in rows[:limit]],
        "queued_messages": [queued_view(row) for row in queue],
        "has_more": len(rows) > limit,
    }


async def list_turns(
    db: Database, owner_id: UUID, chat_id: UUID, *, before_id: UUID | None = None, limit: int = 50
) -> list[Any]:
    """Newest first."""
    await require_chat(db, owner_id, chat_id)
    rows = await db.fetch(
        f"""SELECT {hot.TURN_COLUMNS}, {USAGE}, {OPEN_ITEMS} FROM turns t
        WHERE t.chat_id = $1 AND ($2::uuid IS NULL OR t.position < (
            SELECT b.position FROM turns b WHERE b.id = $2 AND b.chat_id = $1))
        ORDER BY t.position DESC LIMIT $3""",
        chat_id,
        before_id,
        limit,
    )
    return [turn_view(row, usage=load(row["turn_usage"])) for row in rows]


async def get_turn(db: Database, owner_id: UUID, chat_id: UUID, turn_id: UUID) -> Any:
    """Raises `NotFound` also for a turn of another chat."""
    await require_chat(db, owner_id, chat_id)
    row = await db.fetch_one(
        f"""SELECT {hot.TURN_COLUMNS}, {USAGE}, {OPEN_ITEMS} FROM turns t
        WHERE t.id = $1 AND t.chat_id = $2""",
        turn_id,
        chat_id,
    )
    if row is None:
        raise NotFound
    return turn_view(row, usage=load(row["turn_usage"]))


async def require_chat(db: Database, owner_id: UUID, chat_id: UUID) -> None:
    if await db.fetch_one(_OWNED, chat_id, owner_id) is None:
        raise NotFound
