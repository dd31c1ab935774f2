"""Archiving families of chats that nobody has written in for long."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import text

from chatd.core.config import DeploymentConfig
from chatd.store import hot
from chatd.store.db import Database
from chatd.store.editing import SET_ARCHIVED
from chatd.store.family import LOCK_ROOT, lock_below, run
from chatd.store.versions import bump

MAX_ROOTS = 1000
"""In one round; the next one takes the rest."""

_STALE = f"""
FROM chats r WHERE r.parent_chat_id IS NULL AND NOT r.archived AND r.deleted_at IS NULL
    AND r.pin_order = 0 AND r.created_at < clock_timestamp() - make_interval(days => {{days}})
    AND NOT EXISTS (
        SELECT 1 FROM chats c LEFT JOIN LATERAL (
            SELECT m.created_at FROM chat_messages m WHERE m.chat_id = c.id AND NOT m.deleted
            ORDER BY m.id DESC LIMIT 1) AS last ON true
        WHERE (c.id = r.id OR c.root_chat_id = r.id) AND c.deleted_at IS NULL AND (
            c.updated_at >= clock_timestamp() - make_interval(days => {{days}})
            OR last.created_at >= clock_timestamp() - make_interval(days => {{days}})
            OR EXISTS (SELECT 1 FROM turns t WHERE t.chat_id = c.id
                AND (t.status = 'queued' OR t.status IN {hot.ACTIVE}))))
"""

FIND_STALE = f"""
SELECT r.id, r.owner_id {_STALE.format(days="$1")} ORDER BY r.created_at LIMIT {MAX_ROOTS}
"""

STILL_STALE = text(f"SELECT 1 {_STALE.format(days='CAST(:days AS int)')} AND r.id = :chat")

NOTE = text(
    """INSERT INTO audit_log (action, target_type, target_id, request_id, before, after)
    VALUES ('chat_auto_archive', 'chat', :chat, '', '{"archived": false}',
        '{"archived": true}')"""
)


async def find_stale(db: Database, config: DeploymentConfig) -> Sequence[tuple[UUID, UUID]]:
    """Roots and their owners, oldest first: the family's last message is older than the window,
    nothing runs or waits in it, and the root is not pinned. Nor was it touched otherwise: one that
    its user takes out of the archive would go back in ten minutes."""
    if not config.auto_archive_days:
        return []
    rows = await db.fetch(FIND_STALE, config.auto_archive_days)
    return [(row["id"], row["owner_id"]) for row in rows]


async def archive_stale(
    db: Database, root_id: UUID, config: DeploymentConfig
) -> Mapping[UUID, int]:
    """Archive the family if it is still stale, with an audit line; the changed chats' versions."""
    versions: dict[UUID, int] = {}
    async with db.statements() as connection:
        await connection.execute(LOCK_ROOT, {"chat": root_id})
        below = await lock_below(connection, root_id)
        stale = await run(connection, STILL_STALE, chat=root_id, days=config.auto_archive_days)
        if not stale:
            return versions
        for chat_id in (root_id, *(child.id for child in below if not child.archived)):
            versions[chat_id] = await bump(connection, chat_id)
            await connection.execute(SET_ARCHIVED, {"chat": chat_id, "archived": True})
        await connection.execute(NOTE, {"chat": str(root_id)})
    return versions
