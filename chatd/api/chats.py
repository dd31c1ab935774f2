"""Chats: list, read, change, delete, follow."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response

from chatd.api.answers import (
    NOT_FOUND,
    Chat,
    json_answer,
)
from chatd.api.auth import Signed
from chatd.api.bodies import ChatPatchBody
from chatd.api.fields import MAX_INT, ChatId, Limit, MessageId
from chatd.api.limits import JsonRoute
from chatd.api.parts import PartsDep
from chatd.api.submitting import EVENTS
from chatd.core.errors import BadRequest
from chatd.store import chats

router = APIRouter(tags=["chats"], route_class=JsonRoute)

Search = Annotated[
    str,
    Query(
        max_length=500,
        description="Text in the title, and `archived:true`, `archived:false` (the default) or "
        "`archived:any`.",
        examples=["release archived:any"],
    ),
]
LabelFilters = Annotated[
    list[str], Query(alias="label", max_length=50, description="`key:value`; several must all fit.")
]
_ARCHIVED = {"true": True, "false": False, "any": None}


@router.get("/chats", response_model=list[Chat], summary="List your chats, latest change first")
async def list_chats(
    actor: Signed,
    parts: PartsDep,
    q: Search = "",
    label: LabelFilters = [],  # noqa: B006
    limit: Limit = 50,
    offset: Annotated[int, Query(ge=0, le=MAX_INT)] = 0,
    after_id: Annotated[UUID | None, Query(description="The last chat you have.")] = None,
) -> Response:
    archived, search = _search(q)
    found = await chats.list_chats(
        parts.db,
        actor.user_id,
        limit=limit,
        offset=offset,
        after_id=after_id,
        archived=archived,
        labels=_labels(label),
        search=search,
    )
    return json_answer(found)


@router.get("/chats/{chat}", response_model=Chat, responses=NOT_FOUND, summary="One chat")
async def get_chat(chat: ChatId, actor: Signed, parts: PartsDep) -> Response:
    return json_answer(await chats.get_chat(parts.db, actor.user_id, chat))


@router.patch("/chats/{chat}", status_code=204, responses=NOT_FOUND, summary="Change a chat")
async def patch_chat(chat: ChatId, body: ChatPatchBody, actor: Signed, parts: PartsDep) -> Response:
    """Archiving stops the active turn; unarchiving lets the queue go on."""
    await parts.commands.patch_chat(actor, chat, body.to_patch())
    return Response(status_code=204)


@router.delete("/chats/{chat}", status_code=204, responses=NOT_FOUND, summary="Delete a chat")
async def delete_chat(chat: ChatId, actor: Signed, parts: PartsDep) -> Response:
    """Its turns are cancelled; from now on it is not found."""
    await parts.commands.delete_chat(actor, chat)
    return Response(status_code=204)


@router.get(
    "/chats/{chat}/stream",
    response_class=Response,
    responses={200: EVENTS, **NOT_FOUND},
    summary="Follow a chat",
)
async def follow_chat(
    chat: ChatId,
    actor: Signed,
    parts: PartsDep,
    last_event_id: Annotated[str | None, Header(max_length=200)] = None,
    cursor: Annotated[
        str | None, Query(max_length=200, description="The `id` of the last event you have.")
    ] = None,
    after_id: Annotated[
        MessageId | None, Query(description="The last message you have, if you have no cursor.")
    ] = None,
) -> Response:
    """What you miss first (or the newest 50 messages), then live, until you hang up."""
    await chats.require_chat(parts.db, actor.user_id, chat)
    return await parts.streams.chat(
        chat, parts.permits.admit(actor), cursor=last_event_id or cursor, after_id=after_id
    )


def _search(query: str) -> tuple[bool | None, str]:
    archived: bool | None = False
    words: list[str] = []
    for word in query.split():
        name, colon, value = word.partition(":")
        if name != "archived" or not colon:
            words.append(word)
        elif value in _ARCHIVED:
            archived = _ARCHIVED[value]
        else:
            raise BadRequest("Invalid q parameter.", detail="archived: is true, false or any.")
    return archived, " ".join(words)


def _labels(filters: list[str]) -> dict[str, str]:
    labels: dict[str, Any] = {}
    for item in filters:
        key, colon, value = item.partition(":")
        if not (key and colon and value):
            raise BadRequest("Invalid label filter.", detail="A filter is written key:value.")
        labels[key] = value
    return labels
