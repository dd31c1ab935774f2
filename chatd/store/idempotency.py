"""The same request again, under its `Idempotency-Key`: answered as before, done once."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from chatd.core.chats import Actor, Once
from chatd.core.errors import BadRequest, Conflict, NotFound, TooMany
from chatd.store.chats import MESSAGE_COLUMNS, get_chat, get_turn
from chatd.store.db import Database
from chatd.store.family import Changed
from chatd.store.views import message_view

KEY_INDEX = "uq_turns_idempotency"

FIND_KEY = """
SELECT id, chat_id, request_sha256, queued_at > clock_timestamp() - interval '24 hours' AS current
FROM turns WHERE owner_id = $1 AND idempotency_path = $2 AND idempotency_key = $3
"""

FORGET_KEY = "UPDATE turns SET idempotency_key = NULL WHERE id = $1"

USER_MESSAGE = f"SELECT {MESSAGE_COLUMNS} FROM chat_messages m WHERE m.id = $1"

DELETED_WITH = """
SELECT d.id FROM chat_messages m JOIN chat_messages d ON d.chat_id = m.chat_id
    AND d.deleted AND d.version = m.version AND d.id < m.id AND d.visibility <> 'model'
WHERE m.id = $1 ORDER BY d.id
"""

REFUSALS = (BadRequest, NotFound, Conflict, TooMany)


@dataclass(frozen=True, slots=True)
class Accepted:
    """`chat` only for a new one; `message` only when the turn did not have to queue.

    `version` is the chat's after the commit, 0 when the request was a repetition. `deleted` are
    the messages that an edit took out of the history.
    """

    turn: Any
    message: Any
    chat: Any = None
    version: int = 0
    deleted: tuple[int, ...] = ()
    changed: Changed = field(default_factory=Changed)


async def written_or_known(
    db: Database, actor: Actor, once: Once | None, write: Callable[[], Awaitable[Any]]
) -> Any:
    """The row that was written or refused, or the turn that this key has already made.

    A repeated request is answered as before, even if it would be refused now.
    """
    while True:
        refusal: Exception | None = None
        row = None
        try:
            row = await write()
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name != KEY_INDEX:
                raise
        except REFUSALS as error:
            refusal = error
        if row is not None and (once is None or row["id"] is not None):
            return row
        known = await _repeated(db, actor, once) if once is not None else None
        if known is None and refusal is not None:
            raise refusal
        if known is not None or row is not None:
            return known or row


async def is_known(db: Database, actor: Actor, once: Once) -> bool:
    """Whether this key has already made a turn. Raises `Conflict` for another body."""
    return await _repeated(db, actor, once) is not None


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
    message_id = turn["user_message_id"]
    message = await db.fetch_one(USER_MESSAGE, message_id) if message_id is not None else None
    deleted = await db.fetch(DELETED_WITH, message_id) if message is not None else ()
    return Accepted(
        turn=turn,
        message=message_view(message) if message is not None else None,
        chat=await get_chat(db, actor.user_id, found["chat_id"]),
        deleted=tuple(row["id"] for row in deleted),
    )
