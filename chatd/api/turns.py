"""Messages and turns of a chat."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from chatd.api.answers import (
    CONFLICT,
    NOT_FOUND,
    TOO_MANY,
    Messages,
    NewMessageAnswer,
    Turn,
    Turns,
    json_answer,
)
from chatd.api.attaching import with_files
from chatd.api.auth import Signed
from chatd.api.bodies import MessageBody
from chatd.api.fields import ChatId, Limit, MessageId, TurnId
from chatd.api.limits import JsonRoute
from chatd.api.parts import PartsDep
from chatd.api.submitting import EVENTS, Accept, IdempotencyKey, submit, to_once
from chatd.core.errors import BadRequest
from chatd.store import chats

router = APIRouter(tags=["turns"], route_class=JsonRoute)


@router.post(
    "/chats/{chat}/messages",
    status_code=201,
    response_model=NewMessageAnswer,
    responses={201: EVENTS, **NOT_FOUND, **CONFLICT, **TOO_MANY},
    summary="Send a message",
)
async def send_message(
    request: Request,
    chat: ChatId,
    body: MessageBody,
    actor: Signed,
    parts: PartsDep,
    key: IdempotencyKey = None,
    accept: Accept = None,
) -> Response:
    """It becomes a turn: at once, or behind the one that is running (at most 20 wait).

    With `busy_behavior: interrupt` the running one is stopped, and the queue goes on.
    With `Accept: text/event-stream` the answer is the turn's event stream.
    """
    new = await with_files(parts, actor, body.to_turn())
    once = await to_once(request, key)
    return await submit(
        parts,
        actor,
        chat,
        lambda: parts.commands.send_message(
            actor, chat, new, once, interrupt=body.busy_behavior == "interrupt"
        ),
        accept=accept,
        content=new.content,
    )


@router.get(
    "/chats/{chat}/messages",
    response_model=Messages,
    responses=NOT_FOUND,
    summary="List messages",
)
async def list_messages(
    chat: ChatId,
    actor: Signed,
    parts: PartsDep,
    before_id: Annotated[MessageId | None, Query(description="Older than this message.")] = None,
    after_id: Annotated[MessageId | None, Query(description="Newer than this message.")] = None,
    limit: Limit = 50,
) -> Response:
    if before_id is not None and after_id is not None and after_id >= before_id:
        raise BadRequest("after_id must be less than before_id.")
    found = await chats.list_messages(
        parts.db, actor.user_id, chat, before_id=before_id, after_id=after_id, limit=limit
    )
    return json_answer(found)


@router.get("/chats/{chat}/turns", response_model=Turns, responses=NOT_FOUND, summary="List turns")
async def list_turns(
    chat: ChatId,
    actor: Signed,
    parts: PartsDep,
    before_id: Annotated[UUID | None, Query(description="Older than this turn.")] = None,
    limit: Limit = 50,
) -> Response:
    turns = await chats.list_turns(parts.db, actor.user_id, chat, before_id=before_id, limit=limit)
    return json_answer({"turns": turns})


@router.get(
    "/chats/{chat}/turns/{turn}", response_model=Turn, responses=NOT_FOUND, summary="One turn"
)
async def get_turn(chat: ChatId, turn: TurnId, actor: Signed, parts: PartsDep) -> Response:
    return json_answer(await chats.get_turn(parts.db, actor.user_id, chat, turn))
