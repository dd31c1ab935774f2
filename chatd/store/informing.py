"""Telling a turn what became of the sub-agent it waits for.

A worker does it right after its own commit on the sub-agent's turn; a sweeper finds what was
missed, and what ended without a worker: archived, deleted, interrupted while it was runnable.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text

from chatd.store.agents import SETTLED, answer_now
from chatd.store.db import Database
from chatd.store.family import run
from chatd.store.items import close_item
from chatd.store.versions import bump

FIND_WAITS_OVER = f"""
SELECT i.id, i.chat_id FROM open_items i LEFT JOIN chats c ON c.id = i.child_chat_id
WHERE i.state = 'open' AND i.child_chat_id IS NOT NULL
    AND ($1::uuid IS NULL OR i.child_chat_id = $1)
    AND ({SETTLED} OR EXISTS (SELECT 1 FROM turns said
        WHERE said.chat_id = i.chat_id AND said.status = 'queued'))
LIMIT 100
"""

LOCK_PARENT = text("SELECT id FROM chats WHERE id = :chat FOR NO KEY UPDATE")

LOCK_WAIT = text(
    """SELECT id, turn_id, child_chat_id FROM open_items
    WHERE id = :item AND chat_id = :chat AND state = 'open' FOR UPDATE"""
)


async def find_waits_over(
    db: Database, child_chat_id: UUID | None = None
) -> Sequence[tuple[UUID, UUID]]:
    """Items, of this sub-agent or of all, that there is an answer to; with the chats that wait."""
    rows = await db.fetch(FIND_WAITS_OVER, child_chat_id)
    return [(row["id"], row["chat_id"]) for row in rows]


async def end_wait(db: Database, item_id: UUID, chat_id: UUID) -> int | None:
    """Answer it if it is still so. Answers the waiting chat's version, None if it was not."""
    async with db.statements() as connection:
        await connection.execute(LOCK_PARENT, {"chat": chat_id})
        waits = await run(connection, LOCK_WAIT, item=item_id, chat=chat_id)
        if not waits:
            return None
        answer = await answer_now(connection, chat_id, waits[0].child_chat_id)
        if answer is None:
            return None
        version = await bump(connection, chat_id)
        await close_item(connection, waits[0], version, answer=answer)
    return version
