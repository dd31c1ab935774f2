"""Changing and deleting a chat, and what takes a turn from its worker."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from chatd.core.chats import MAX_TITLE, Actor, ChatPatch
from chatd.core.errors import BadRequest, NotFound
from chatd.store import hot
from chatd.store.db import Database, dump
from chatd.store.submitting import refuse_servers

LOCK_CHAT = text(
    """SELECT id, version, archived FROM chats
    WHERE id = :chat AND owner_id = :owner AND deleted_at IS NULL FOR NO KEY UPDATE"""
)

BUMP = text(
    """UPDATE chats SET version = version + 1, updated_at = clock_timestamp()
    WHERE id = :chat RETURNING version"""
)

CANCEL_TURNS = text(
    f"""UPDATE turns SET status = 'cancelled', lease_id = NULL, lease_expires_at = NULL,
        finished_at = clock_timestamp(), version = :version
    WHERE chat_id = :chat AND (status = 'queued' OR status IN {hot.ACTIVE}) RETURNING id"""
)

CLOSE_JOURNAL = text(
    """UPDATE tool_calls SET finished_at = clock_timestamp(),
        state = CASE state WHEN 'intended' THEN 'cancelled' ELSE 'unknown' END
    WHERE turn_id = ANY (CAST(:turns AS uuid[])) AND state IN ('intended', 'sent', 'waiting')"""
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

INTERRUPTED = "tool call was interrupted before it produced a result"

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
        RETURNING t.id, t.chat_id, t.owner_id, t.model_config_id, t.content, t.user_message_id
    )
    INSERT INTO chat_messages (id, chat_id, turn_id, step, position, created_by, model_config_id,
        role, content, version)
    SELECT p.user_message_id, p.chat_id, p.id, 0, 0, p.owner_id, p.model_config_id, 'user',
        p.content, :version FROM promoted p
    RETURNING turn_id"""
)

UNKNOWN_SERVERS = text(
    """SELECT asked FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS list(asked, place)
    WHERE NOT EXISTS (SELECT 1 FROM mcp_server_configs s WHERE s.id = asked AND s.enabled)
        AND NOT asked = ANY ((SELECT mcp_server_ids FROM chats WHERE id = :chat)::uuid[])
    ORDER BY place"""
)

SET_FIELDS = text(
    """UPDATE chats SET
        title = coalesce(:title, title),
        labels = coalesce(CAST(:labels AS jsonb), labels),
        archived = coalesce(CAST(:archived AS boolean), archived),
        archived_at = CASE WHEN CAST(:archived AS boolean) IS NULL THEN archived_at
            WHEN :archived THEN clock_timestamp() END,
        pin_order = CASE WHEN CAST(:archived AS boolean) THEN 0 ELSE pin_order END,
        plan_mode = CASE WHEN CAST(:plan_mode AS text) IS NULL THEN plan_mode
            ELSE nullif(:plan_mode, '') END,
        mcp_server_ids = coalesce(CAST(:servers AS uuid[]), mcp_server_ids)
    WHERE id = :chat"""
)

HIDE = text("UPDATE chats SET deleted_at = clock_timestamp() WHERE id = :chat")


async def patch_chat(db: Database, actor: Actor, chat_id: UUID, patch: ChatPatch) -> int:
    """Answers the chat's version.

    Archiving stops the active turn (its worker commits what it has) and leaves the queue waiting;
    unarchiving promotes the queue's head.
    """
    title = _checked_title(patch.title)
    async with db.statements() as connection:
        chat = await _locked(connection, actor, chat_id)
        _check_archived(chat.archived, patch.archived)
        servers = await _checked_servers(connection, chat_id, patch.mcp_server_ids)
        version = await bump(connection, chat_id)
        await connection.execute(
            SET_FIELDS,
            {
                "chat": chat_id,
                "title": title,
                "labels": dump(patch.labels) if patch.labels is not None else None,
                "archived": patch.archived,
                "plan_mode": patch.plan_mode,
                "servers": servers,
            },
        )
        if patch.archived is True:
            stopped = await _run(connection, STOP_ACTIVE, chat=chat_id, version=version)
            ended = [turn.id for turn in stopped if turn.status == "interrupted"]
            await close_calls(connection, ended, version)
        if patch.archived is False:
            await _run(connection, PROMOTE_HEAD, chat=chat_id, version=version)
    return version


async def delete_chat(db: Database, actor: Actor, chat_id: UUID) -> int:
    """Cancel its turns and hide it at once; a job removes the rows. Answers the chat's version."""
    async with db.statements() as connection:
        await _locked(connection, actor, chat_id)
        version = await bump(connection, chat_id)
        turns = await _run(connection, CANCEL_TURNS, chat=chat_id, version=version)
        await connection.execute(CLOSE_JOURNAL, {"turns": [turn.id for turn in turns]})
        await connection.execute(HIDE, {"chat": chat_id})
    return version


async def close_calls(connection: AsyncConnection, turn_ids: Sequence[UUID], version: int) -> None:
    """For turns ended from outside a worker: their journal is closed, open calls are answered."""
    turns = {"turns": list(turn_ids)}
    await connection.execute(CLOSE_JOURNAL, turns)
    answered = turns | {"version": version, "interrupted": INTERRUPTED}
    await connection.execute(ANSWER_OPEN_CALLS, answered)


async def bump(connection: AsyncConnection, chat_id: UUID) -> int:
    """The chat's next version: once per transaction that changes what a client keeps."""
    return (await connection.execute(BUMP, {"chat": chat_id})).scalar_one()


async def _run(
    connection: AsyncConnection, statement: TextClause, **params: object
) -> Sequence[Any]:
    return (await connection.execute(statement, params)).all()


async def _locked(connection: AsyncConnection, actor: Actor, chat_id: UUID) -> Any:
    found = await _run(connection, LOCK_CHAT, chat=chat_id, owner=actor.user_id)
    if not found:
        raise NotFound
    return found[0]


def _checked_title(title: str | None) -> str | None:
    if title is None:
        return None
    title = title.strip()
    if not title:
        raise BadRequest("Title cannot be empty.")
    if len(title) > MAX_TITLE:
        raise BadRequest(f"Title must be at most {MAX_TITLE} characters.")
    return title


def _check_archived(now: bool, wanted: bool | None) -> None:
    if wanted is not None and wanted == now:
        raise BadRequest("Chat is already archived." if now else "Chat is not archived.")


async def _checked_servers(
    connection: AsyncConnection, chat_id: UUID, asked: tuple[UUID, ...] | None
) -> list[UUID] | None:
    if asked is None:
        return None
    ids = list(dict.fromkeys(asked))
    unknown = await _run(connection, UNKNOWN_SERVERS, ids=ids, chat=chat_id)
    if unknown:
        refuse_servers([row.asked for row in unknown])
    return ids
