"""Accepting a turn: into a new chat, into an existing one, or again under the same key."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chatd.core.chats import MAX_QUEUED, Actor, NewChat, NewTurn, Once, fallback_title
from chatd.core.errors import BadRequest, Conflict, NotFound, TooMany, Unavailable
from chatd.store import hot
from chatd.store.db import Database, dump, fetch_within
from chatd.store.family import Changed, lock_in_family
from chatd.store.idempotency import Accepted, written_or_known
from chatd.store.stopping import promote_head, stop_active, stop_below
from chatd.store.views import chat_view, message_view, turn_view

Submission = tuple[object, ...]

READ_TURN = f"""
SELECT {hot.TURN_COLUMNS}, m.created_at AS message_created_at
FROM turns t LEFT JOIN chat_messages m ON m.id = t.user_message_id WHERE t.id = $1
"""


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
        dump(new.dynamic_tools),
        turn.on_auth_required,
    )
    insert = partial(db.fetch_one, hot.CREATE_CHAT, *args)
    row = await written_or_known(db, actor, once, insert)
    if isinstance(row, Accepted):
        return row
    if row["id"] is None:
        refuse_unusable(row, turn)
    chat = _new_chat(row, actor, new)
    return Accepted(turn_view(row), _user_message(row, actor), chat, version=1)


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
    interrupt: bool = False,
) -> Accepted:
    """Queue a turn or make it runnable; with `interrupt`, also stop the one that is active.

    Raises `NotFound`, `Conflict` (archived; the key with another body), `BadRequest` (unknown
    servers or model), `TooMany` (the queue is full); nothing is written then.
    """
    args = submission(actor, chat_id, new, once, turn_id=turn_id, traceparent=traceparent)
    write = (
        partial(_interrupting, db, actor, chat_id, args) if interrupt else partial(_fresh, db, args)
    )
    row = await written_or_known(db, actor, once, write)
    if isinstance(row, Accepted):
        return row
    if row["id"] is None:
        refuse(row, new)
    return accepted(row, actor)


async def _fresh(db: Database, args: Submission) -> Any:
    """Submit, again while the chat changed under the statement. Raises `NotFound`."""
    while True:
        row = await db.fetch_one(hot.SUBMIT, *args)
        if row is None or not row["found"]:
            raise NotFound
        if row["fresh"]:
            return row


async def _interrupting(db: Database, actor: Actor, chat_id: UUID, args: Submission) -> Any:
    """Submit, and stop what runs: then this turn may be the one that runs next."""
    changed = Changed()
    async with db.statements() as connection:
        await lock_in_family(connection, actor, chat_id)
        row = await submit_within(connection, args)
        if row["id"] is None or not row["busy"]:
            return row
        if await stop_active(connection, chat_id, row["version"], changed):
            await stop_below(connection, chat_id, changed)
            await promote_head(connection, chat_id, row["version"])
        (now,) = await fetch_within(connection, READ_TURN, row["id"])
    return {**row, **now, "changed": changed}


async def submit_within(connection: AsyncConnection, args: Submission) -> Any:
    """The same in a transaction that has locked the chat: nobody changes it under us."""
    (row,) = await fetch_within(connection, hot.SUBMIT, *args)
    return row


def submission(
    actor: Actor,
    chat_id: UUID,
    new: NewTurn,
    once: Once | None,
    *,
    turn_id: UUID,
    traceparent: str | None,
) -> Submission:
    """The arguments of `hot.SUBMIT`."""
    return (
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
        new.kind,
        new.on_auth_required,
    )


def accepted(row: Any, actor: Actor) -> Accepted:
    """A turn that was written, from its row."""
    changed: Changed = row.get("changed") or Changed()
    version = changed.versions[row["chat_id"]] = row["version"]
    return Accepted(
        turn=turn_view(row),
        message=_user_message(row, actor) if row["message_created_at"] is not None else None,
        version=version,
        deleted=row.get("deleted", ()),
        changed=changed,
    )


def refuse(row: Any, new: NewTurn) -> NoReturn:
    """Raise for what `hot.SUBMIT` did not write."""
    if row["archived"]:
        raise Conflict("Chat is archived.", detail="Unarchive the chat to send messages.")
    refuse_unusable(row, new)
    if row["fixed_servers"]:
        refuse_fixed_servers()
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


def refuse_fixed_servers() -> NoReturn:
    """Raise `BadRequest`: what a sub-agent that explores may use was settled when it started."""
    raise BadRequest(
        "This chat's MCP servers cannot be changed.",
        validations=[{"field": "mcp_server_ids", "detail": "a sub-agent that explores keeps its"}],
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
