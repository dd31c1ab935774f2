"""What waits and what runs: interrupting, taking out of the queue, running something sooner."""

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from chatd.core.chats import Actor
from chatd.core.errors import Conflict, NotFound
from chatd.store import hot
from chatd.store.db import Database, fetch_within
from chatd.store.family import Changed, lock_chat, lock_in_family, run
from chatd.store.idempotency import Accepted
from chatd.store.stopping import promote_head, stop_active, stop_below
from chatd.store.submitting import READ_TURN, accepted
from chatd.store.versions import bump

ACTIVE_TURN = text(f"SELECT id FROM turns WHERE chat_id = :chat AND status IN {hot.ACTIVE}")

CANCEL_QUEUED = text(
    """UPDATE turns SET status = 'cancelled', finished_at = clock_timestamp(), version = :version
    WHERE id = :turn AND chat_id = :chat AND status = 'queued' RETURNING id"""
)

LOCK_QUEUED = text(
    """SELECT id FROM turns WHERE id = :turn AND chat_id = :chat AND status = 'queued'
    FOR UPDATE"""
)

TO_HEAD = text(
    """WITH waiting AS (
        SELECT id, position, row_number() OVER (ORDER BY position) AS place,
            row_number() OVER (ORDER BY id <> :turn, position) AS wanted
        FROM turns WHERE chat_id = :chat AND status = 'queued'
    )
    UPDATE turns t SET position = seat.position, version = :version
    FROM waiting JOIN waiting AS seat ON seat.place = waiting.wanted
    WHERE t.id = waiting.id AND waiting.place <> waiting.wanted"""
)


def _not_queued() -> NotFound:
    return NotFound("Queued message not found.")


async def interrupt_chat(
    db: Database, actor: Actor, chat_id: UUID, turn_id: UUID | None = None
) -> Changed:
    """Stop the active turn and those of the chats below; the queue goes on.

    Changes nothing when the chat is idle, or when another turn than the given one is active.
    """
    async with db.statements() as connection:
        return await interrupt_within(connection, actor, chat_id, turn_id)


async def interrupt_within(
    connection: AsyncConnection, actor: Actor, chat_id: UUID, turn_id: UUID | None
) -> Changed:
    """The same in a transaction that has locked nothing yet."""
    changed = Changed()
    chat = await lock_in_family(connection, actor, chat_id)
    active = await run(connection, ACTIVE_TURN, chat=chat_id)
    if not active or (turn_id is not None and active[0].id != turn_id):
        return changed
    version = chat.version + 1
    if await stop_active(connection, chat_id, version, changed):
        changed.versions[chat_id] = await bump(connection, chat_id)
        if not chat.archived:
            await promote_head(connection, chat_id, version)
    await stop_below(connection, chat_id, changed)
    return changed


async def delete_queued(db: Database, actor: Actor, chat_id: UUID, turn_id: UUID) -> Changed:
    """Take a message out of the queue. Raises `NotFound` when it does not wait any more."""
    async with db.statements() as connection:
        await lock_chat(connection, actor, chat_id)
        version = await bump(connection, chat_id)
        if not await run(connection, CANCEL_QUEUED, turn=turn_id, chat=chat_id, version=version):
            raise _not_queued()
    return Changed({chat_id: version})


async def promote_queued(db: Database, actor: Actor, chat_id: UUID, turn_id: UUID) -> Accepted:
    """Put a queued turn before all others and stop the active one; with none it runs at once.

    Raises `NotFound` when it does not wait any more, `Conflict` for an archived chat.
    """
    changed = Changed()
    async with db.statements() as connection:
        chat = await lock_in_family(connection, actor, chat_id)
        if not await run(connection, LOCK_QUEUED, turn=turn_id, chat=chat_id):
            raise _not_queued()
        if chat.archived:
            raise Conflict("Chat is archived.", detail="Unarchive the chat to run its queue.")
        version = await bump(connection, chat_id)
        moved = {"turn": turn_id, "chat": chat_id, "version": version}
        await connection.execute(TO_HEAD, moved)
        if await stop_active(connection, chat_id, version, changed):
            await stop_below(connection, chat_id, changed)
        await promote_head(connection, chat_id, version)
        (row,) = await fetch_within(connection, READ_TURN, turn_id)
    return accepted({**row, "version": version, "changed": changed}, actor)
