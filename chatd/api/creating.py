"""Creating a chat: the route asked for most, by itself so that it is found first."""

from dataclasses import replace

from fastapi import APIRouter, Request, Response

from chatd.api.answers import CONFLICT, NewChatAnswer
from chatd.api.attaching import with_files
from chatd.api.auth import Signed
from chatd.api.bodies import ChatBody
from chatd.api.limits import JsonRoute
from chatd.api.parts import PartsDep
from chatd.api.submitting import EVENTS, Accept, IdempotencyKey, submit, to_once
from chatd.store.ids import new_id

router = APIRouter(tags=["chats"], route_class=JsonRoute)


@router.post(
    "/chats",
    status_code=201,
    response_model=NewChatAnswer,
    responses={201: EVENTS, **CONFLICT},
    summary="Create a chat with its first message",
)
async def create_chat(
    request: Request,
    body: ChatBody,
    actor: Signed,
    parts: PartsDep,
    key: IdempotencyKey = None,
    accept: Accept = None,
) -> Response:
    """The turn runs at once. With `Accept: text/event-stream` the answer is its event stream."""
    new, once, chat_id = body.to_chat(), await to_once(request, key), new_id()
    new = replace(new, turn=await with_files(parts, actor, new.turn))
    return await submit(
        parts,
        actor,
        chat_id,
        lambda: parts.commands.create_chat(actor, new, once, chat_id=chat_id),
        accept=accept,
        content=new.turn.content,
    )
