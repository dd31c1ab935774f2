"""What a follower of a chat reads: one statement, so one snapshot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from chatd.store import hot
from chatd.store.chats import MESSAGE_COLUMNS, USAGE
from chatd.store.db import Database, load
from chatd.store.items import OPEN_ITEMS
from chatd.store.views import message_view, queued_view, turn_view

NEWEST = 50
"""Messages a reader without a cursor begins with."""

RECENT_TURNS = 25
"""Turns looked at for what changed: a chat's queue and the few that can end in two seconds."""

VERSIONS = "SELECT id, version FROM chats WHERE id = ANY ($1::uuid[]) AND deleted_at IS NULL"

READABLE = """
    m.chat_id = c.id AND NOT m.deleted AND m.visibility <> 'model'
"""

LAST_MESSAGE = """
SELECT coalesce(max(id), 0) AS id FROM chat_messages WHERE chat_id = $1 AND version <= $2
"""

STATE = f"""
SELECT c.version, c.history_version,
    EXISTS (SELECT 1 FROM chat_messages m WHERE m.id = $2 AND {READABLE}) AS held,
    (SELECT json_agg(x) FROM (SELECT {hot.TURN_COLUMNS} FROM turns t
        WHERE t.chat_id = c.id AND t.status = 'queued' ORDER BY t.position) AS x) AS queue,
    (SELECT json_agg(x) FROM (SELECT {hot.TURN_COLUMNS}, {USAGE}, {OPEN_ITEMS}, t.commits,
            t.version, t.position FROM turns t
        WHERE t.chat_id = c.id AND t.user_message_id IS NOT NULL
        ORDER BY t.position DESC LIMIT {RECENT_TURNS}) AS x) AS turns,
    (SELECT row_to_json(x) FROM (SELECT {hot.TURN_COLUMNS}, {USAGE}, {OPEN_ITEMS}, t.commits,
            t.version FROM turns t WHERE t.id = $3::uuid AND t.chat_id = c.id) AS x) AS own,
    CASE WHEN $3 IS NOT NULL THEN
        (SELECT json_agg(x ORDER BY x.id) FROM (SELECT {MESSAGE_COLUMNS} FROM chat_messages m
            WHERE {READABLE} AND m.turn_id = $3 AND m.id > coalesce($2::bigint, 0)) AS x)
    WHEN $2 IS NULL THEN
        (SELECT json_agg(x ORDER BY x.id) FROM (SELECT {MESSAGE_COLUMNS} FROM chat_messages m
            WHERE {READABLE} ORDER BY m.id DESC LIMIT {NEWEST + 1}) AS x)
    ELSE
        (SELECT json_agg(x ORDER BY x.id) FROM (SELECT {MESSAGE_COLUMNS} FROM chat_messages m
            WHERE {READABLE} AND m.id > $2) AS x)
    END AS messages
FROM chats c WHERE c.id = $1 AND c.deleted_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class TurnState:
    """A turn as its chat's followers know it."""

    view: Any
    version: int
    commits: int


@dataclass(frozen=True, slots=True)
class ChatState:
    """Values ready for JSON. `turns`: oldest first, only those whose message is in history."""

    version: int
    history_version: int
    messages: list[Any]
    has_more: bool
    queue: list[Any]
    turns: list[TurnState]
    held: bool = False
    """Whether the message that was asked after is still in the history."""
    own: TurnState | None = None
    """The one turn that was asked for, whatever its age, also when it is queued."""


async def read_state(
    db: Database, chat_id: UUID, after_message_id: int | None, turn_id: UUID | None = None
) -> ChatState | None:
    """Everything after that message, or the newest 50; None when the chat is gone.

    With a turn, only that turn's messages, however many follow them.
    """
    row = await db.fetch_one(STATE, chat_id, after_message_id, turn_id)
    if row is None:
        return None
    messages = [message_view(message) for message in load(row["messages"]) or ()]
    has_more = turn_id is None and after_message_id is None and len(messages) > NEWEST
    own = load(row["own"])
    return ChatState(
        version=row["version"],
        history_version=row["history_version"],
        messages=messages[-NEWEST:] if has_more else messages,
        has_more=has_more,
        queue=[queued_view(turn) for turn in load(row["queue"]) or ()],
        turns=[_turn_state(turn) for turn in reversed(load(row["turns"]) or [])],
        held=row["held"],
        own=_turn_state(own) if own is not None else None,
    )


def _turn_state(turn: Any) -> TurnState:
    return TurnState(turn_view(turn, usage=turn["turn_usage"]), turn["version"], turn["commits"])


async def last_message(db: Database, chat_id: UUID, version: int) -> int:
    """The newest message the chat had at that version; 0 when it had none."""
    row = await db.fetch_one(LAST_MESSAGE, chat_id, version)
    return row["id"] if row is not None else 0


async def read_versions(db: Database, chat_ids: Sequence[UUID]) -> Mapping[UUID, int]:
    """The versions of these chats; one that is gone is not in the answer."""
    rows = await db.fetch(VERSIONS, list(chat_ids))
    return {row["id"]: row["version"] for row in rows}
