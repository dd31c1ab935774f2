"""Rewriting a chat's history, and how far its user has read it."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from chatd.api.answers import (
    CONFLICT,
    NOT_FOUND,
    TOO_MANY,
    Chat,
    Message,
    NewMessageAnswer,
    Turn,
    json_answer,
)
from chatd.api.attaching import with_files
from chatd.api.auth import Signed
from chatd.api.bodies import EditBody, ReadBody, RegenerateBody
from chatd.api.fields import ChatId, MessagePath
from chatd.api.limits import JsonRoute
from chatd.api.parts import PartsDep
from chatd.api.submitting import EVENTS, Accept, IdempotencyKey, submit, to_once
from chatd.store import chats

router = APIRouter(tags=["turns"], route_class=JsonRoute)


class EditAnswer(BaseModel):
    """The message as it is now, and what is no longer in the history."""

    message: Message
    turn: Turn
    messages: list[Message] = Field(description="What is new in the history: that message.")
    deleted_message_ids: Annotated[list[int], Field(examples=[[7, 8]])]
    warnings: list[str]


class CompactAnswer(BaseModel):
    """The turn that sums up the history."""

    turn: Turn


@router.patch(
    "/chats/{chat}/messages/{message}",
    response_model=EditAnswer,
    responses={200: EVENTS, **NOT_FOUND, **CONFLICT},
    summary="Edit a message",
)
async def edit_message(
    request: Request,
    chat: ChatId,
    message: MessagePath,
    body: EditBody,
    actor: Signed,
    parts: PartsDep,
    key: IdempotencyKey = None,
    accept: Accept = None,
) -> Response:
    """The message and all that followed leave the history, and the new one runs at once.

    The active turn ends as superseded, the queue is dropped. With `Accept: text/event-stream` the
    answer is the turn's event stream.
    """
    new = await with_files(parts, actor, body.to_turn())
    once = await to_once(request, key)
    return await submit(
        parts,
        actor,
        chat,
        lambda: parts.commands.edit_message(actor, chat, message, new, once),
        accept=accept,
        status=200,
        content=new.content,
    )


@router.post(
    "/chats/{chat}/regenerate",
    status_code=201,
    response_model=NewMessageAnswer,
    responses={201: EVENTS, **NOT_FOUND, **CONFLICT},
    summary="Answer the last message again",
)
async def regenerate(
    request: Request,
    chat: ChatId,
    actor: Signed,
    parts: PartsDep,
    body: RegenerateBody | None = None,
    key: IdempotencyKey = None,
    accept: Accept = None,
) -> Response:
    """As if the last message were edited to what it says: also after a failed or stopped turn.

    It runs with the settings it was sent with, unless others are given.
    """
    new, once = (body or RegenerateBody()).to_turn(), await to_once(request, key)
    return await submit(
        parts,
        actor,
        chat,
        lambda: parts.commands.regenerate(actor, chat, new, once),
        accept=accept,
    )


@router.post(
    "/chats/{chat}/clear",
    response_model=Chat,
    responses={**NOT_FOUND, **CONFLICT},
    summary="Let the model forget",
)
async def clear(chat: ChatId, actor: Signed, parts: PartsDep) -> Response:
    """The history stays to be read, but the model sees only what comes from now on.

    409 while a turn is active or waits.
    """
    await parts.commands.clear(actor, chat)
    return json_answer(await chats.get_chat(parts.db, actor.user_id, chat))


@router.post(
    "/chats/{chat}/compact",
    status_code=201,
    response_model=CompactAnswer,
    responses={**NOT_FOUND, **CONFLICT, **TOO_MANY},
    summary="Sum up the history",
)
async def compact(
    request: Request, chat: ChatId, actor: Signed, parts: PartsDep, key: IdempotencyKey = None
) -> Response:
    """A turn of its own, behind the active one; the model then reads the summary."""
    once = await to_once(request, key)
    return json_answer((await parts.commands.compact(actor, chat, once)).body, 201)


@router.post("/chats/{chat}/read", status_code=204, responses=NOT_FOUND, summary="Mark as read")
async def mark_read(
    chat: ChatId, actor: Signed, parts: PartsDep, body: ReadBody | None = None
) -> Response:
    """Up to a message or, without one, to the newest; never back."""
    await parts.commands.mark_read(actor, chat, body.message_id if body is not None else None)
    return Response(status_code=204)
