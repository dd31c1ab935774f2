"""Accepting a turn: into a new chat, into an existing one, or again under the same key."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn
from uuid import UUID

import asyncpg

from chatd.core.chats import MAX_QUEUED, Actor, NewChat, NewTurn, Once, fallback_title
from chatd.core.errors import BadRequest, Conflict, NotFound, TooMany, Unavailable
from chatd.store import hot
from chatd.store.chats import MESSAGE_COLUMNS, get_chat, get_turn
from chatd.store.db import Database, dump
from chatd.store.views import chat_view, message_view, turn_view

KEY_INDEX = "uq_turns_idempotency"

FIND_KEY = """
SELECT id, chat_id, request_sha256, queued_at > clock_timestamp() - interval '24 hours' AS current
FROM turns WHERE owner_id = $1 AND idempotency_path = $2 AND idempotency_key = $3
"""

FORGET_KEY = "UPDATE turns SET idempotency_key = NULL WHERE id = $1"

USER_MESSAGE = f"SELECT {MESSAGE_COLUMNS} FROM chat_messages m WHERE m.id = $1"


@dataclass(frozen=True, slots=True)
class Accepted:
    """`chat` only for a new one; `message` only when the turn did not have to queue.

    `version` is the chat's after the commit, 0 when the request was a repetition.
    """

    turn: Any
    message: Any
    chat: Any = None
    version: int = 0


async def create_chat(
    db: Database,
    actor: Actor,
    new: NewChat,
    once: Once | None,
    *,
    chat_id: UUID,
    turn_id: UUID,
    traceparent: str | None = None,
) -> Accepted:
    """Raises `BadRequest` for unknown servers or models; nothing is written then."""
    turn = new.turn
    args = (
        chat_id,
        actor.user_id,
        fallback_title(turn.content),
        new.system_prompt,
        turn.plan_mode or None,
        turn.model_config_id,
        turn.reasoning_effort,
        _distinct(turn.mcp_server_ids),
        dump(new.labels),
        new.client_type,
        turn_id,
        dump(turn.content),
        *_key(once),
        traceparent,
    )
    insert = partial(db.fetch_one, hot.CREATE_CHAT, *args)
    row = await _written_or_known(db, actor, once, insert)
    if isinstance(row, Accepted):
        return row
    if row["id"] is None:
        refuse_unusable(row, turn)
    return Accepted(
        turn=turn_view(row),
        message=_user_message(row, actor),
        chat=_new_chat(row, actor, new),
        version=1,
    )


def _new_chat(row: Any, actor: Actor, new: NewChat) -> Any:
    """The Chat object from what was just inserted: nothing has to be read again."""
    fields = {
        **row,
        "owner_id": actor.user_id,
        "parent_chat_id": None,
        "root_chat_id": None,
        "last_model_config_id": row["model_config_id"],
        "last_reasoning_effort": row["reasoning_effort"],
        "client_type": new.client_type,
        "archived": False,
        "pin_order": 0,
    }
    return chat_view({**fields, "id": row["chat_id"]}, status=row["status"])


async def submit_turn(
    db: Database,
    actor: Actor,
    chat_id: UUID,
    new: NewTurn,
    once: Once | None,
    *,
    turn_id: UUID,
    traceparent: str | None = None,
) -> Accepted:
    """Queue a turn or make it runnable.

    Raises `NotFound`, `Conflict` (archived; the key with another body), `BadRequest` (unknown
    servers or model), `TooMany` (the queue is full); nothing is written then.
    """
    args = (
        chat_id,
        actor.user_id,
        turn_id,
        new.model_config_id,
        new.reasoning_effort,
        _distinct(new.mcp_server_ids),
        new.plan_mode,
        dump(new.content),
        *_key(once),
        traceparent,
        MAX_QUEUED,
    )
    row = await _written_or_known(db, actor, once, partial(_fresh, db, *args))
    if isinstance(row, Accepted):
        return row
    if row["id"] is None:
        _refuse(row, new)
    return Accepted(
        turn=turn_view(row),
        message=_user_message(row, actor) if row["message_created_at"] is not None else None,
        version=row["version"],
    )


async def _fresh(db: Database, *args: object) -> Any:
    """Submit, again while the chat changed under the statement. Raises `NotFound`."""
    while True:
        row = await db.fetch_one(hot.SUBMIT, *args)
        if row is None or not row["found"]:
            raise NotFound
        if row["fresh"]:
            return row


async def _written_or_known(
    db: Database, actor: Actor, once: Once | None, write: Callable[[], Awaitable[Any]]
) -> Any:
    """The row that was written or refused, or the turn that this key has already made.

    A repeated request is answered as before, even if it would be refused now.
    """
    while True:
        try:
            row = await write()
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name != KEY_INDEX:
                raise
            row = None
        if once is None or (row is not None and row["id"] is not None):
            return row
        known = await _repeated(db, actor, once)
        if known is not None or row is not None:
            return known or row


def _refuse(row: Any, new: NewTurn) -> NoReturn:
    if row["archived"]:
        raise Conflict("Chat is archived.", detail="Unarchive the chat to send messages.")
    refuse_unusable(row, new)
    if row["queued"] is not None and row["queued"] >= MAX_QUEUED:
        raise TooMany(
            "Message queue is full.",
            detail=f"Maximum {MAX_QUEUED} messages can be queued.",
            headers={"Retry-After": "5"},
        )
    raise Unavailable


def refuse_servers(unknown: Sequence[UUID]) -> NoReturn:
    """Raise `BadRequest` naming the servers that do not exist, or not for this user."""
    listed = ", ".join(str(server_id) for server_id in unknown)
    raise BadRequest(
        "One or more MCP server IDs are invalid.",
        detail=f"Invalid IDs: {listed}",
        validations=[{"field": "mcp_server_ids", "detail": f"unknown: {listed}"}],
    )


def refuse_unusable(row: Any, turn: NewTurn) -> None:
    """Raise for servers or models that do not exist."""
    if row["unknown"] is not None:
        refuse_servers(row["unknown"])
    if row["model"] is None:
        if turn.model_config_id is not None:
            raise BadRequest("Invalid model config ID.")
        raise BadRequest(
            "No default model is configured.", detail="An administrator has to add a model first."
        )


async def _repeated(db: Database, actor: Actor, once: Once) -> Accepted | None:
    """The turn this key made; None when the key had run out and is free again."""
    found = await db.fetch_one(FIND_KEY, actor.user_id, once.path, once.key)
    if found is None:
        return None
    if not found["current"]:
        await db.fetch(FORGET_KEY, found["id"])
        return None
    if found["request_sha256"] != once.request_sha256:
        raise Conflict("This Idempotency-Key was used with another request body.")
    turn = await get_turn(db, actor.user_id, found["chat_id"], found["id"])
    message = (
        await db.fetch_one(USER_MESSAGE, turn["user_message_id"])
        if turn["user_message_id"] is not None
        else None
    )
    return Accepted(
        turn=turn,
        message=message_view(message) if message is not None else None,
        chat=await get_chat(db, actor.user_id, found["chat_id"]),
    )


def _distinct(ids: tuple[UUID, ...] | None) -> list[UUID] | None:
    return list(dict.fromkeys(ids)) if ids is not None else None


def _key(once: Once | None) -> tuple[str | None, str | None, bytes | None]:
    return (once.path, once.key, once.request_sha256) if once is not None else (None, None, None)


def _user_message(row: Any, actor: Actor) -> Any:
    return message_view(
        {
            "id": row["user_message_id"],
            "chat_id": row["chat_id"],
            "turn_id": row["id"],
            "created_by": actor.user_id,
            "model_config_id": row["model_config_id"],
            "created_at": row["message_created_at"],
            "role": "user",
            "content": row["content"],
            "usage": None,
        }
    )
