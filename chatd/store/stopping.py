"""Taking turns from their workers, ending them from outside, and letting the next one run."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from chatd.store import hot
from chatd.store.family import Changed, lock_below, run
from chatd.store.versions import bump

CLOSE_JOURNAL = text(
    """UPDATE tool_calls SET finished_at = clock_timestamp(),
        state = CASE state WHEN 'intended' THEN 'cancelled' ELSE 'unknown' END
    WHERE turn_id = ANY (CAST(:turns AS uuid[])) AND state IN ('intended', 'sent', 'waiting')"""
)

CANCEL_ITEMS = text(
    """UPDATE open_items SET state = 'cancelled', answered_at = clock_timestamp(),
        version = :version
    WHERE turn_id = ANY (CAST(:turns AS uuid[])) AND state = 'open'"""
)

ANSWER_OPEN_CALLS = text(
    """INSERT INTO chat_messages (chat_id, turn_id, step, position, role, content, version)
    SELECT j.chat_id, j.turn_id, j.step, j.position, 'tool',
        json_build_array(coalesce(j.result, json_build_object('type', 'tool-result',
            'tool_call_id', j.tool_call_id, 'tool_name', j.tool_name,
            'result', CAST(:interrupted AS text), 'is_error', true))), :version
    FROM tool_calls j WHERE j.turn_id = ANY (CAST(:turns AS uuid[])) AND NOT EXISTS (
        SELECT 1 FROM chat_messages m WHERE m.turn_id = j.turn_id AND m.step = j.step
            AND m.position = j.position)
    ORDER BY j.turn_id, j.step, j.position"""
)

STOP_ACTIVE = text(
    """UPDATE turns SET version = :version,
        status = CASE status WHEN 'running' THEN 'interrupting' ELSE 'interrupted' END,
        finished_at = CASE status WHEN 'running' THEN NULL ELSE clock_timestamp() END
    WHERE chat_id = :chat AND status IN ('pending', 'running', 'requires_action')
    RETURNING id, status"""
)

END_TURNS = text(
    f"""UPDATE turns t SET lease_id = NULL, lease_expires_at = NULL, version = :version,
        finished_at = clock_timestamp(),
        status = CASE was.status WHEN 'queued' THEN 'cancelled' ELSE CAST(:ending AS text) END
    FROM (SELECT id, status, lease_id FROM turns
        WHERE chat_id = :chat AND (status = 'queued' OR status IN {hot.ACTIVE})
        FOR UPDATE) AS was
    WHERE t.id = was.id RETURNING t.id, was.lease_id"""
)

PROMOTE_HEAD = text(
    f"""WITH head AS (
        SELECT t.id FROM turns t WHERE t.chat_id = :chat AND t.status = 'queued'
            AND NOT EXISTS (SELECT 1 FROM turns a WHERE a.chat_id = :chat
                AND a.status IN {hot.ACTIVE})
        ORDER BY t.position LIMIT 1
    ), promoted AS (
        UPDATE turns t SET status = 'pending', pending_at = clock_timestamp(), version = :version,
            user_message_id = nextval('chat_messages_id_seq')
        FROM head WHERE t.id = head.id
        RETURNING t.id, t.chat_id, t.owner_id, t.model_config_id, t.content, t.user_message_id,
            t.kind
    ), message AS (
        INSERT INTO chat_messages (id, chat_id, turn_id, step, position, created_by,
            model_config_id, role, content, version)
        SELECT p.user_message_id, p.chat_id, p.id, 0, 0, p.owner_id, p.model_config_id, 'user',
            p.content, :version FROM promoted p WHERE p.kind = 'message'
    )
    SELECT id AS turn_id FROM promoted"""
)

INTERRUPTED = "tool call was interrupted before it produced a result"


async def stop_active(
    connection: AsyncConnection, chat_id: UUID, version: int, changed: Changed
) -> bool:
    """Interrupt a locked chat's active turn; whether there was one to interrupt.

    A running one goes on until its worker has committed what it has; any other ends at once.
    """
    stopped: Sequence[Any] = await run(connection, STOP_ACTIVE, chat=chat_id, version=version)
    changed.stops += [turn.id for turn in stopped if turn.status == "interrupting"]
    ended = [turn.id for turn in stopped if turn.status == "interrupted"]
    if ended:
        await close_calls(connection, ended, version)
    return bool(stopped)


async def stop_below(connection: AsyncConnection, chat_id: UUID, changed: Changed) -> None:
    """The same for the chats below it; each goes on with its queue."""
    for child in await lock_below(connection, chat_id):
        version = child.version + 1
        if await stop_active(connection, child.id, version, changed):
            changed.versions[child.id] = await bump(connection, child.id)
            if not child.archived:
                await promote_head(connection, child.id, version)


async def end_turns(
    connection: AsyncConnection, chat_id: UUID, version: int, changed: Changed, *, ending: str
) -> None:
    """End the active turn of a locked chat as `ending`, and cancel its queue.

    Nothing is answered: the messages of that turn go as well.
    """
    ended: Sequence[Any] = await run(
        connection, END_TURNS, chat=chat_id, version=version, ending=ending
    )
    changed.stops += [turn.id for turn in ended if turn.lease_id is not None]
    await close_journal(connection, [turn.id for turn in ended], version)


async def close_calls(connection: AsyncConnection, turn_ids: Sequence[UUID], version: int) -> None:
    """For turns ended from outside a worker whose messages stay: their open calls are answered."""
    await close_journal(connection, turn_ids, version)
    answered = {"turns": list(turn_ids), "version": version, "interrupted": INTERRUPTED}
    await connection.execute(ANSWER_OPEN_CALLS, answered)


async def close_journal(
    connection: AsyncConnection, turn_ids: Sequence[UUID], version: int
) -> None:
    """What these turns had sent or planned is over, and they wait for nobody any more."""
    turns = {"turns": list(turn_ids)}
    await connection.execute(CLOSE_JOURNAL, turns)
    await connection.execute(CANCEL_ITEMS, turns | {"version": version})


async def promote_head(connection: AsyncConnection, chat_id: UUID, version: int) -> UUID | None:
    """Make a locked chat's queue head runnable if nothing is active. Answers its turn."""
    promoted = await run(connection, PROMOTE_HEAD, chat=chat_id, version=version)
    return promoted[0].turn_id if promoted else None
