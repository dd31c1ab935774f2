"""What a user does about open items: client tool results, approvals, answers to questions."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from chatd.core.chats import Actor
from chatd.core.errors import BadRequest, Conflict, NotFound
from chatd.core.items import ItemKind
from chatd.core.tools import JsonObject
from chatd.store.audit import note_approval
from chatd.store.db import Database, load
from chatd.store.items import ITEM_VIEW, close_item
from chatd.store.versions import bump

_LOCK_CHAT = text(
    """SELECT id, archived FROM chats
    WHERE id = :chat AND owner_id = :owner AND deleted_at IS NULL FOR NO KEY UPDATE"""
)

_OPEN = text(
    """SELECT id, turn_id, tool_call_id FROM open_items
    WHERE chat_id = :chat AND kind = :kind AND state = 'open' ORDER BY created_at, id FOR UPDATE"""
)

_ITEM = text(
    """SELECT id, turn_id, kind, answer,
        CASE WHEN state = 'open' AND deadline < clock_timestamp() THEN 'expired' ELSE state END
            AS state  -- a sweeper may not have been here yet
    FROM open_items WHERE id = :item AND chat_id = :chat FOR UPDATE"""
)

_ITEM_TO_SHOW = f"""
SELECT {ITEM_VIEW} AS item, i.state, i.answer FROM open_items i JOIN chats c ON c.id = i.chat_id
WHERE i.id = $1 AND i.chat_id = $2 AND c.owner_id = $3 AND c.deleted_at IS NULL
"""


async def get_item(db: Database, actor: Actor, chat_id: UUID, item_id: UUID) -> Any:
    """An item as clients see it. Raises `NotFound`."""
    row = await db.fetch_one(_ITEM_TO_SHOW, item_id, chat_id, actor.user_id)
    if row is None:
        raise NotFound
    return {**load(row["item"]), "state": row["state"], "answer": load(row["answer"])}


async def answer_item(
    db: Database,
    actor: Actor,
    chat_id: UUID,
    item_id: UUID,
    kind: ItemKind,
    answer: Mapping[str, Any],
) -> int:
    """Answers the chat's version; 0 when the very same was answered before.

    Raises `NotFound`, or `Conflict` when it was answered otherwise, or is closed.
    """
    async with db.statements() as connection:
        await _lock(connection, actor, chat_id)
        found = await connection.execute(_ITEM, {"item": item_id, "chat": chat_id})
        item = found.one_or_none()
        if item is None or item.kind != kind:
            raise NotFound
        if item.state == "answered" and item.answer == dict(answer):
            return 0
        if item.state == "answered":
            raise Conflict("This was answered before, with another answer.")
        if item.state != "open":
            raise Conflict("This is no longer waiting for an answer.", detail=item.state)
        version = await bump(connection, chat_id)
        await close_item(connection, item, version, answer=answer, by=actor.user_id)
        if kind == "approval":
            await note_approval(connection, actor.user_id, item_id, answer["decision"])
    return version


async def answer_calls(
    db: Database, actor: Actor, chat_id: UUID, results: Mapping[str, JsonObject]
) -> int:
    """The client's results by tool call id, all that are open together. Answers the chat's version.

    Raises `Conflict` when none is open, `BadRequest` when they are not exactly those.
    """
    async with db.statements() as connection:
        await _lock(connection, actor, chat_id)
        found = await connection.execute(_OPEN, {"chat": chat_id, "kind": "tool_result"})
        waiting = found.all()
        if not waiting:
            raise Conflict("Chat is not waiting for tool results.")
        _check_ids({item.tool_call_id for item in waiting}, results)
        version = await bump(connection, chat_id)
        for item in waiting:
            answer = results[item.tool_call_id]
            await close_item(connection, item, version, answer=answer, by=actor.user_id)
    return version


def _check_ids(wanted: set[str], given: Mapping[str, object]) -> None:
    missing, unexpected = sorted(wanted - given.keys()), sorted(given.keys() - wanted)
    if missing:
        raise BadRequest("A tool result is missing.", detail=_listed("Missing", missing))
    if unexpected:
        raise BadRequest("A tool result is unexpected.", detail=_listed("Unexpected", unexpected))


def _listed(what: str, ids: Sequence[str]) -> str:
    return f"{what} tool_call_id: {', '.join(ids)}"


async def _lock(connection: AsyncConnection, actor: Actor, chat_id: UUID) -> None:
    owned = {"chat": chat_id, "owner": actor.user_id}
    chat = (await connection.execute(_LOCK_CHAT, owned)).one_or_none()
    if chat is None:
        raise NotFound
    if chat.archived:
        raise Conflict("Chat is archived.", detail="Unarchive the chat first.")
