"""What runs and what waits: stop a turn, take a message out of the queue, run one sooner."""

from fastapi import APIRouter, Response

from chatd.api.answers import CONFLICT, NOT_FOUND, Chat, NewMessageAnswer, json_answer
from chatd.api.auth import Signed
from chatd.api.bodies import InterruptBody
from chatd.api.fields import ChatId, TurnId
from chatd.api.limits import JsonRoute
from chatd.api.parts import PartsDep
from chatd.store import chats

router = APIRouter(tags=["turns"], route_class=JsonRoute)


@router.post(
    "/chats/{chat}/interrupt",
    response_model=Chat,
    responses=NOT_FOUND,
    summary="Stop the active turn",
)
async def interrupt(
    chat: ChatId, actor: Signed, parts: PartsDep, body: InterruptBody | None = None
) -> Response:
    """What was answered so far is kept; the queue goes on. Chats that it started are stopped too.

    Does nothing when no turn is active, or another than the one that is named.
    """
    await parts.commands.interrupt(actor, chat, body.turn_id if body is not None else None)
    return json_answer(await chats.get_chat(parts.db, actor.user_id, chat))


@router.delete(
    "/chats/{chat}/queue/{turn}",
    status_code=204,
    responses=NOT_FOUND,
    summary="Take a message out of the queue",
)
async def delete_queued(chat: ChatId, turn: TurnId, actor: Signed, parts: PartsDep) -> Response:
    """404 also when it does not wait any more."""
    await parts.commands.delete_queued(actor, chat, turn)
    return Response(status_code=204)


@router.post(
    "/chats/{chat}/queue/{turn}/promote",
    response_model=NewMessageAnswer,
    responses={**NOT_FOUND, **CONFLICT},
    summary="Run a queued message next",
)
async def promote_queued(chat: ChatId, turn: TurnId, actor: Signed, parts: PartsDep) -> Response:
    """It goes to the head of the queue and stops the active turn; with none it runs at once.

    404 also when it does not wait any more.
    """
    return json_answer(await parts.commands.promote_queued(actor, chat, turn))
