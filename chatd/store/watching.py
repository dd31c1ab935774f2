"""What watchers of an owner's chats read, and what its reader has read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from chatd.core.turns import chat_status
from chatd.core.watching import Look, Sighting
from chatd.store import hot
from chatd.store.chats import CHAT_ROWS
from chatd.store.db import Database, load
from chatd.store.items import ACTIVE_STATUS, ITEM_VIEW
from chatd.store.views import stored_chat_view

SEE_OWNERS = f"""
SELECT c.id, c.owner_id, c.version, c.archived, false AS deleted, c.title, {ACTIVE_STATUS},
    ended.status AS last_status, ended.id AS ended,
    ARRAY(SELECT i.id::text FROM open_items i
        WHERE i.chat_id = c.id AND i.state = 'open' AND i.kind <> 'child') AS asks
FROM chats c
    LEFT JOIN turns active ON active.chat_id = c.id AND active.status IN {hot.ACTIVE}
    LEFT JOIN LATERAL (SELECT e.id, e.status FROM turns e
        WHERE e.chat_id = c.id AND e.finished_at IS NOT NULL AND e.user_message_id IS NOT NULL
        ORDER BY e.position DESC LIMIT 1) AS ended ON true
WHERE c.owner_id = ANY ($1::uuid[]) AND c.deleted_at IS NULL
"""
"""No more than a look needs: one owner may have ten thousand chats, and this process others."""

SEE_CHATS = f"""
SELECT seen.*, x.deleted_at IS NOT NULL AS deleted,
    (SELECT t.id FROM turns t WHERE t.chat_id = x.id AND t.finished_at IS NOT NULL
        AND t.user_message_id IS NOT NULL ORDER BY t.position DESC LIMIT 1) AS ended,
    (SELECT json_agg({ITEM_VIEW} ORDER BY i.created_at, i.id) FROM open_items i
        WHERE i.chat_id = x.id AND i.state = 'open' AND i.kind <> 'child') AS open_items
FROM ({CHAT_ROWS} WHERE c.id = ANY ($1::uuid[])) AS seen JOIN chats x ON x.id = seen.id
"""

CHANGED = """
SELECT id, owner_id, version FROM chats WHERE owner_id = ANY ($1::uuid[]) AND deleted_at IS NULL
    AND updated_at > clock_timestamp() - make_interval(secs => $3)
UNION ALL
SELECT id, owner_id, version FROM chats WHERE owner_id = ANY ($1::uuid[])
    AND deleted_at > clock_timestamp() - make_interval(secs => $3)
UNION ALL
SELECT id, owner_id, version FROM chats WHERE id = ANY ($2::uuid[])
"""
"""A claim moves a chat's version and not its `updated_at`: those that have something to claim are
asked for by id."""

_NOTHING: frozenset[str] = frozenset()
"""Shared: a watcher holds one look a chat, and an empty set of its own is a quarter of it."""

MARK_READ = """
UPDATE chats c SET last_read_message_id = last.id FROM (
    SELECT max(m.id) AS id FROM chat_messages m
    WHERE m.chat_id = $1 AND ($2::bigint IS NULL OR m.id <= $2) AND m.role = 'assistant'
        AND NOT m.deleted
) last
WHERE c.id = $1 AND c.deleted_at IS NULL AND last.id > coalesce(c.last_read_message_id, 0)
RETURNING c.id
"""


async def mark_read(db: Database, chat_id: UUID, message_id: int | None) -> bool:
    """Everything (up to this message) is read; never backwards, and no news to anybody.

    Answers whether that changed (and for a moment locked) the chat.
    """
    return bool(await db.fetch(MARK_READ, chat_id, message_id))


class WatchReads:
    """What `chatd.stream.watchers` asks of the database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def owners(self, owner_ids: Sequence[UUID]) -> list[Look]:
        """All their chats that are not deleted."""
        rows = await self._db.fetch(SEE_OWNERS, list(owner_ids))
        return [_look(row, row["asks"]) for row in rows]

    async def chats(self, chat_ids: Sequence[UUID]) -> Mapping[UUID, Sighting]:
        """Also deleted ones, until their rows go."""
        rows = await self._db.fetch(SEE_CHATS, list(chat_ids))
        return {row["id"]: _sighting(row) for row in rows}

    async def changed(
        self, owner_ids: Sequence[UUID], chat_ids: Sequence[UUID], within_s: float
    ) -> Mapping[UUID, tuple[UUID, int]]:
        """Owner and version of these chats and of what changed lately with these owners."""
        rows = await self._db.fetch(CHANGED, list(owner_ids), list(chat_ids), within_s)
        return {row["id"]: (row["owner_id"], row["version"]) for row in rows}


def _sighting(row: Any) -> Sighting:
    items: list[Any] = load(row["open_items"]) or []
    look = _look(row, (item["id"] for item in items))
    return Sighting(look, stored_chat_view(row), items)


def _look(row: Any, asks: Iterable[str]) -> Look:
    return Look(
        id=row["id"],
        owner_id=row["owner_id"],
        version=row["version"],
        visible=not row["archived"] and not row["deleted"],
        title=row["title"],
        status=chat_status(row["active_status"], row["last_status"]),
        ended=row["ended"],
        asks=frozenset(asks) or _NOTHING,
    )
