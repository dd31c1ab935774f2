"""What a sweeper finds and mends. Each rule repeats its condition under the locks."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from chatd.core.errors import turn_error
from chatd.store import hot
from chatd.store.db import Database, dump
from chatd.store.stopping import CANCEL_ITEMS, PROMOTE_HEAD, close_calls
from chatd.store.usage import RECORD_EXPIRED
from chatd.store.versions import bump

MAX_LOST = 3
"""Leases a turn may lose without a committed step between; then it is what kills its workers."""

BATCH = 100

EXPIRED = f"""
SELECT id, chat_id FROM turns WHERE status IN ('running', 'interrupting')
    AND lease_expires_at < clock_timestamp() LIMIT {BATCH}
"""

_STRANDED = f"""
FROM turns q JOIN chats c ON c.id = q.chat_id
WHERE q.status = 'queued' AND NOT c.archived AND c.deleted_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM users u WHERE u.id = c.owner_id AND u.suspended)
    AND NOT EXISTS (SELECT 1 FROM turns a WHERE a.chat_id = q.chat_id AND a.status IN {hot.ACTIVE})
    AND coalesce((SELECT e.status FROM turns e WHERE e.chat_id = q.chat_id
        AND e.finished_at IS NOT NULL AND e.user_message_id IS NOT NULL
        ORDER BY e.user_message_id DESC LIMIT 1), '') <> 'failed'
"""

STRANDED = f"SELECT DISTINCT q.chat_id {_STRANDED} LIMIT {BATCH}"

STILL_STRANDED = text(f"SELECT 1 {_STRANDED} AND c.id = :chat LIMIT 1")

UNCLAIMED = f"""
WITH {hot.ROOM}
SELECT count(*) AS turns FROM turns t {hot.CLAIMABLE}
    AND t.pending_at < clock_timestamp() - interval '2 seconds'
"""

LOCK_CHAT = text("SELECT archived FROM chats WHERE id = :chat FOR NO KEY UPDATE")

LOCK_EXPIRED = text(
    """SELECT status, lost, commits FROM turns WHERE id = :turn
        AND status IN ('running', 'interrupting') AND lease_expires_at < clock_timestamp()
    FOR UPDATE"""
)

RELEASE = text(
    """UPDATE turns SET status = 'pending', pending_at = clock_timestamp(), lost = lost + 1,
        lease_id = NULL, lease_expires_at = NULL, worker_id = NULL, version = :version
    WHERE id = :turn"""
)

END = text(
    """UPDATE turns SET status = :status, error = CAST(:error AS json), lease_id = NULL,
        lease_expires_at = NULL, finished_at = clock_timestamp(), version = :version
    WHERE id = :turn"""
)


async def find_expired(db: Database) -> Sequence[tuple[UUID, UUID]]:
    """Turns whose lease has run out, with their chats."""
    return [(row["id"], row["chat_id"]) for row in await db.fetch(EXPIRED)]


async def find_stranded(db: Database) -> Sequence[UUID]:
    """Chats with a queue and nothing that would ever move it."""
    return [row["chat_id"] for row in await db.fetch(STRANDED)]


async def count_unclaimed(db: Database) -> int:
    """Turns that a worker could have, and none has taken for two seconds: their wakes were lost."""
    row = await db.fetch_one(UNCLAIMED)
    return row["turns"] if row is not None else 0


async def expire_turn(db: Database, turn_id: UUID, chat_id: UUID) -> int | None:
    """Take a turn from its lost worker. Answers the chat's version, None if there was no need.

    Runnable again; interrupted if that was asked; failed if it lost its third worker in a row.
    """
    async with db.statements() as connection:
        chat = await _run(connection, LOCK_CHAT, chat=chat_id)
        found = await _run(connection, LOCK_EXPIRED, turn=turn_id)
        if not chat or not found:
            return None
        version = await bump(connection, chat_id)
        await connection.execute(RECORD_EXPIRED, {"turn": turn_id})
        turn = found[0]
        if turn.status == "running" and turn.lost + 1 < MAX_LOST:
            # What its lost worker was asking had an open call: nobody waits for the answer.
            await connection.execute(CANCEL_ITEMS, {"turns": [turn_id], "version": version})
            await connection.execute(RELEASE, {"turn": turn_id, "version": version})
            return version
        error = None
        if turn.status == "running":
            message = f"The turn lost its worker {MAX_LOST} times in a row."
            error = dump(turn_error("worker_lost", message))
        status = "interrupted" if error is None else "failed"
        await close_calls(connection, [turn_id], version)
        ending = {"turn": turn_id, "version": version, "status": status, "error": error}
        await connection.execute(END, ending)
        if status == "interrupted" and not chat[0].archived:
            await connection.execute(PROMOTE_HEAD, {"chat": chat_id, "version": version})
    return version


async def promote_stranded(db: Database, chat_id: UUID) -> int | None:
    """Make a chat's queue head runnable if nothing else is. Answers the chat's version."""
    async with db.statements() as connection:
        await connection.execute(LOCK_CHAT, {"chat": chat_id})
        if not await _run(connection, STILL_STRANDED, chat=chat_id):
            return None
        version = await bump(connection, chat_id)
        await connection.execute(PROMOTE_HEAD, {"chat": chat_id, "version": version})
    return version


async def _run(connection: AsyncConnection, statement: TextClause, **params: object) -> Any:
    return (await connection.execute(statement, params)).all()
