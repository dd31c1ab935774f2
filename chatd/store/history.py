"""Rewriting a chat's history: edit, regenerate, clear. What is taken out stays as deleted rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from chatd.core.chats import Actor, NewTurn, Once
from chatd.core.errors import BadRequest, Conflict, NotFound
from chatd.store import hot
from chatd.store.db import Database, load
from chatd.store.family import Changed, lock_chat, lock_in_family, run
from chatd.store.idempotency import Accepted, written_or_known
from chatd.store.stopping import end_turns, stop_below
from chatd.store.submitting import accepted, refuse, submission, submit_within
from chatd.store.versions import bump

FIND_MESSAGE = text(
    """SELECT role FROM chat_messages
    WHERE id = :message AND chat_id = :chat AND NOT deleted AND visibility <> 'model'"""
)

LAST_SAID = text(
    f"""SELECT said.id, said.turn_id, said.content, t.reasoning_effort, t.plan_mode,
        (SELECT usable.id FROM ({hot.USABLE_MODEL}) AS usable
            WHERE usable.id = t.model_config_id) AS model_config_id,
        ARRAY(SELECT s.id FROM unnest(t.mcp_server_ids) WITH ORDINALITY AS asked(id, place)
            JOIN mcp_server_configs s ON s.id = asked.id
            WHERE s.enabled AND {hot.MAY_USE.format(user="c.owner_id")}
                OR s.id = ANY (c.mcp_server_ids) ORDER BY place) AS mcp_server_ids
    FROM chat_messages said JOIN turns t ON t.id = said.turn_id
        JOIN chats c ON c.id = said.chat_id
    WHERE said.chat_id = :chat AND said.role = 'user' AND NOT said.deleted
        AND said.visibility <> 'model' AND NOT EXISTS (
            SELECT 1 FROM chat_messages cleared WHERE cleared.chat_id = said.chat_id
                AND cleared.id > said.id AND cleared.compressed AND NOT cleared.deleted
                AND cleared.visibility = 'model' AND json_array_length(cleared.content) = 0)
    ORDER BY said.id DESC LIMIT 1"""
)

STILL_APPROVED = text("UPDATE files SET approved_turn_id = :new WHERE approved_turn_id = :old")
"""The approval of a plan, said again, approves it still."""

DELETE_FROM = text(
    """UPDATE chat_messages SET deleted = true, version = :version
    WHERE chat_id = :chat AND id >= :message AND NOT deleted RETURNING id, visibility"""
)

REWRITTEN = text(
    """UPDATE chats SET history_version = :version, context_from_message_id = coalesce((
        SELECT max(m.id) FROM chat_messages m WHERE m.chat_id = :chat AND NOT m.deleted
            AND m.compressed AND m.visibility = 'model'), 0)
    WHERE id = :chat"""
)

BUSY = text(
    f"""SELECT 1 FROM turns WHERE chat_id = :chat
        AND (status = 'queued' OR status IN {hot.ACTIVE}) LIMIT 1"""
)

DRAW_LINE = text(
    """INSERT INTO chat_messages (chat_id, turn_id, step, position, role, content, visibility,
        compressed, version)
    SELECT t.chat_id, t.id, coalesce((SELECT max(m.step) + 1 FROM chat_messages m
        WHERE m.turn_id = t.id), 0), 0, 'user', '[]', 'model', true, :version
    FROM turns t WHERE t.chat_id = :chat AND t.user_message_id IS NOT NULL
    ORDER BY t.user_message_id DESC LIMIT 1"""
)


@dataclass(frozen=True, slots=True)
class Rewrite:
    """An edit of `message_id`; of none: the last thing said, again, unless `new` says more."""

    actor: Actor
    chat_id: UUID
    message_id: int | None
    new: NewTurn
    once: Once | None
    turn_id: UUID
    traceparent: str | None


async def rewrite(db: Database, asked: Rewrite) -> Accepted:
    """Take a user message and all that followed out of the history, and say it anew.

    The active turn is superseded, those below are interrupted, the queue is dropped. Raises
    `NotFound`, `BadRequest`, `Conflict` (archived; nothing to regenerate); nothing is written then.
    """
    row = await written_or_known(db, asked.actor, asked.once, partial(_rewrite, db, asked))
    if isinstance(row, Accepted):
        return row
    return accepted(row, asked.actor)


async def _rewrite(db: Database, asked: Rewrite) -> Any:
    changed = Changed()
    chat_id = asked.chat_id
    async with db.statements() as connection:
        chat = await lock_in_family(connection, asked.actor, chat_id)
        message_id, new, again = await _said(connection, asked)
        if chat.archived:
            raise Conflict("Chat is archived.", detail="Unarchive the chat to change its history.")
        version = chat.version + 1
        await end_turns(connection, chat_id, version, changed, ending="superseded")
        await stop_below(connection, chat_id, changed)
        rows = await run(connection, DELETE_FROM, chat=chat_id, message=message_id, version=version)
        args = submission(
            asked.actor,
            chat_id,
            new,
            asked.once,
            turn_id=asked.turn_id,
            traceparent=asked.traceparent,
        )
        row = await submit_within(connection, args)
        if row["id"] is None:
            refuse(row, new)
        await connection.execute(STILL_APPROVED, {"new": row["id"], "old": again})
        await connection.execute(REWRITTEN, {"chat": chat_id, "version": version})
    return {**row, "changed": changed, "deleted": _shown(rows)}


async def _said(connection: AsyncConnection, asked: Rewrite) -> tuple[int, NewTurn, UUID | None]:
    """The message that goes, what is said instead, and the turn that said the very same."""
    if asked.message_id is None:
        return await _said_last(connection, asked)
    found = await run(connection, FIND_MESSAGE, chat=asked.chat_id, message=asked.message_id)
    if not found:
        raise NotFound("Chat message not found.")
    if found[0].role != "user":
        raise BadRequest("Only user messages can be edited.")
    return asked.message_id, asked.new, None


async def _said_last(connection: AsyncConnection, asked: Rewrite) -> tuple[int, NewTurn, UUID]:
    """With the settings it was said with, unless others are asked for."""
    found = await run(connection, LAST_SAID, chat=asked.chat_id)
    if not found:
        raise Conflict("There is nothing to regenerate.")
    last, new = found[0], asked.new
    servers, plan_mode = new.mcp_server_ids, new.plan_mode
    said = replace(
        new,
        content=load(last.content),
        model_config_id=new.model_config_id or last.model_config_id,
        reasoning_effort=new.reasoning_effort or last.reasoning_effort,
        mcp_server_ids=tuple(last.mcp_server_ids) if servers is None else servers,
        plan_mode=(last.plan_mode or "") if plan_mode is None else plan_mode,
    )
    return last.id, said, last.turn_id


def _shown(rows: Sequence[Any]) -> tuple[int, ...]:
    """Only messages that a client may hold."""
    return tuple(sorted(row.id for row in rows if row.visibility != "model"))


async def clear_chat(db: Database, actor: Actor, chat_id: UUID) -> Changed:
    """From now on the model reads only what comes later; everybody else still sees all.

    The boundary is a row that only the model would read and that says nothing, so that an edit
    before it finds the boundary gone. Raises `NotFound`, `Conflict`.
    """
    async with db.statements() as connection:
        chat = await lock_chat(connection, actor, chat_id)
        if chat.archived:
            raise Conflict("Chat is archived.", detail="Unarchive the chat to change its history.")
        if await run(connection, BUSY, chat=chat_id):
            raise Conflict(
                "Chat is busy.", detail="A chat with a running turn or a queue cannot be cleared."
            )
        version = await bump(connection, chat_id)
        await connection.execute(DRAW_LINE, {"chat": chat_id, "version": version})
        await connection.execute(REWRITTEN, {"chat": chat_id, "version": version})
    return Changed({chat_id: version})
