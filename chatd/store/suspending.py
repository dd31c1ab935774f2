"""Ending what a user has running or waiting, one family of chats a transaction; and letting it on.

A request that came in just before its user was suspended may still leave a turn behind: the sweeper
looks for such.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from chatd import logs
from chatd.core.chats import Actor
from chatd.core.errors import NotFound, Unavailable
from chatd.store import hot
from chatd.store.db import Database
from chatd.store.family import Changed, lock_below, lock_in_family, run
from chatd.store.stopping import stop_active
from chatd.store.sweeping import promote_stranded
from chatd.store.versions import bump

FIND_AT_WORK = f"""
SELECT DISTINCT coalesce(c.root_chat_id, c.id) AS root FROM chats c
WHERE c.owner_id = $1 AND c.deleted_at IS NULL AND (
    EXISTS (SELECT 1 FROM turns t WHERE t.chat_id = c.id AND t.status IN {hot.ACTIVE}
        AND t.status <> 'interrupting')
    OR EXISTS (SELECT 1 FROM turns t WHERE t.chat_id = c.id AND t.status = 'queued'))
ORDER BY root LIMIT $2
"""

FIND_SUSPENDED_AT_WORK = " UNION ".join(
    f"""
SELECT t.owner_id FROM users u JOIN turns t ON t.owner_id = u.id
WHERE u.suspended AND t.status = '{status}'"""
    for status in ("pending", "running", "requires_action", "queued")
)
"""As constants: there is an index for each."""

STILL_SUSPENDED = text("SELECT 1 FROM users WHERE id = :owner AND suspended")

FIND_QUEUES = """
SELECT DISTINCT c.id FROM chats c JOIN turns t ON t.chat_id = c.id AND t.status = 'queued'
WHERE c.owner_id = $1 AND c.deleted_at IS NULL AND NOT c.archived ORDER BY c.id
"""

log = logs.get("suspending")

CANCEL_QUEUE = text(
    """UPDATE turns SET status = 'cancelled', finished_at = clock_timestamp(), version = :version
    WHERE chat_id = :chat AND status = 'queued' RETURNING id"""
)


async def end_work(
    db: Database, owner_id: UUID, limit: int | None = None
) -> AsyncGenerator[Changed]:
    """Stop every active turn of theirs and cancel every queue; what each transaction changed.

    A running turn goes on until its worker has committed what it has, as when it is interrupted.
    Whoever is suspended no more keeps what is left. What cannot be ended keeps nothing else from
    it. `limit`: of families. Raises `Unavailable`.
    """
    for root in [row["root"] for row in await db.fetch(FIND_AT_WORK, owner_id, limit)]:
        try:
            changed = await _end_family(db, owner_id, root)
        except NotFound:
            continue  # deleted meanwhile, and that has ended it
        except Unavailable:
            raise
        except Exception as error:
            log.exception("work goes on", chat=str(root), error=type(error).__name__)
            continue
        if changed is None:
            return
        yield changed


async def _end_family(db: Database, owner_id: UUID, root: UUID) -> Changed | None:
    """None: its owner is no longer suspended."""
    changed = Changed()
    async with db.statements() as connection:
        # `lock_in_family` asks for an owner only: whose role it is does not matter.
        chat = await lock_in_family(connection, Actor(owner_id, "member"), root)
        below = await lock_below(connection, root)
        # What is in locked chats came before this look: nobody who is back has begun it.
        if not await run(connection, STILL_SUSPENDED, owner=owner_id):
            return None
        for member in (chat, *below):
            await _end(connection, member, changed)
    return changed


async def _end(connection: AsyncConnection, chat: Any, changed: Changed) -> None:
    """Of one locked chat."""
    version = chat.version + 1
    cancelled = await run(connection, CANCEL_QUEUE, chat=chat.id, version=version)
    stopped = await stop_active(connection, chat.id, version, changed)
    if cancelled or stopped:
        changed.versions[chat.id] = await bump(connection, chat.id)


async def find_suspended_at_work(db: Database) -> Sequence[UUID]:
    """Suspended users who have something that runs or would."""
    return [row["owner_id"] for row in await db.fetch(FIND_SUSPENDED_AT_WORK)]


async def resume_queues(db: Database, owner_id: UUID) -> AsyncGenerator[Changed]:
    """Let the head of every queue of theirs run; what each transaction changed.

    None runs of whoever is suspended again.
    """
    for row in await db.fetch(FIND_QUEUES, owner_id):
        version = await promote_stranded(db, row["id"])
        if version is not None:
            yield Changed({row["id"]: version})
