"""What a sweeper finds and mends. Each rule repeats its condition under the locks."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from chatd.core.errors import turn_error
from chatd.store import hot
from chatd.store.db import Database, dump
from chatd.store.editing import CLOSE_JOURNAL, PROMOTE_HEAD, bump

MAX_LOST = 3
"""Leases a turn may lose without a committed step between; then it is what kills its workers."""

BATCH = 100

INTERRUPTED = "tool call was interrupted before it produced a result"

EXPIRED = f"""
SELECT id, chat_id FROM turns WHERE status IN ('running', 'interrupting')
    AND lease_expires_at < clock_timestamp() LIMIT {BATCH}
"""

STRANDED = f"""
SELECT DISTINCT q.chat_id FROM turns q JOIN chats c ON c.id = q.chat_id
WHERE q.status = 'queued' AND NOT c.archived AND c.deleted_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM turns a WHERE a.chat_id = q.chat_id AND a.status IN {hot.ACTIVE})
    AND coalesce((SELECT e.status FROM turns e WHERE e.chat_id = q.chat_id
        AND e.finished_at IS NOT NULL AND e.user_message_id IS NOT NULL
        ORDER BY e.user_message_id DESC LIMIT 1), '') <> 'failed'
LIMIT {BATCH}
"""

UNCLAIMED = """
SELECT count(*) AS turns FROM turns
WHERE status = 'pending' AND pending_at < clock_timestamp() - interval '2 seconds'
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

ANSWER_OPEN_CALLS = text(
    """INSERT INTO chat_messages (chat_id, turn_id, step, position, role, content, version)
    SELECT j.chat_id, j.turn_id, j.step, j.position, 'tool',
        json_build_array(coalesce(j.result, json_build_object('type', 'tool-result',
            'tool_call_id', j.tool_call_id, 'tool_name', j.tool_name,
            'result', CAST(:interrupted AS text), 'is_error', true))), :version
    FROM tool_calls j WHERE j.turn_id = :turn AND NOT EXISTS (
        SELECT 1 FROM chat_messages m WHERE m.turn_id = j.turn_id AND m.step = j.step
            AND m.position = j.position)
    ORDER BY j.step, j.position"""
)


async def find_expired(db: Database) -> Sequence[tuple[UUID, UUID]]:
    """Turns whose lease has run out, with their chats."""
    return [(row["id"], row["chat_id"]) for row in await db.fetch(EXPIRED)]


async def find_stranded(db: Database) -> Sequence[UUID]:
    """Chats with a queue and nothing that would ever move it."""
    return [row["chat_id"] for row in await db.fetch(STRANDED)]


async def count_unclaimed(db: Database) -> int:
    """Runnable turns that nobody has taken for two seconds: their wakes were lost."""
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
        turn = found[0]
        if turn.status == "running" and turn.lost + 1 < MAX_LOST:
            await connection.execute(RELEASE, {"turn": turn_id, "version": version})
            return version
        error = None
        if turn.status == "running":
            message = f"The turn lost its worker {MAX_LOST} times in a row."
            error = dump(turn_error("worker_lost", message))
        status = "interrupted" if error is None else "failed"
        await close_turn(connection, turn_id, version, status=status, error=error)
        if status == "interrupted" and not chat[0].archived:
            await connection.execute(PROMOTE_HEAD, {"chat": chat_id, "version": version})
    return version


async def close_turn(
    connection: AsyncConnection, turn_id: UUID, version: int, *, status: str, error: str | None
) -> None:
    """End a turn from outside its worker: journal closed, open calls answered."""
    await connection.execute(CLOSE_JOURNAL, {"turns": [turn_id]})
    params = {"turn": turn_id, "version": version}
    await connection.execute(ANSWER_OPEN_CALLS, params | {"interrupted": INTERRUPTED})
    await connection.execute(END, params | {"status": status, "error": error})


async def promote_stranded(db: Database, chat_id: UUID) -> int | None:
    """Make a chat's queue head runnable if nothing else is. Answers the chat's version."""
    async with db.statements() as connection:
        chat = await _run(connection, LOCK_CHAT, chat=chat_id)
        if not chat or chat[0].archived:
            return None
        version = await bump(connection, chat_id)
        promoted = await _run(connection, PROMOTE_HEAD, chat=chat_id, version=version)
        return version if promoted else None


async def _run(connection: AsyncConnection, statement: TextClause, **params: object) -> Any:
    return (await connection.execute(statement, params)).all()
