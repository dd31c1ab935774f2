"""Titles on request: saved, or only proposed."""

from fastapi import APIRouter, Response
from pydantic import BaseModel

from chatd.api.answers import CONFLICT, NOT_FOUND, Chat, Json, Problem, json_answer
from chatd.api.auth import Signed
from chatd.api.fields import ChatId
from chatd.api.limits import JsonRoute
from chatd.api.parts import PartsDep
from chatd.store import chats

router = APIRouter(tags=["chats"], route_class=JsonRoute)

_TIMEOUT: dict[int | str, Json] = {
    504: {"model": Problem, "description": "No worker answered in time."}
}
REFUSALS = {**NOT_FOUND, **CONFLICT, **_TIMEOUT}


class ProposedTitle(BaseModel):
    title: str


@router.post(
    "/chats/{chat}/title/regenerate",
    response_model=Chat,
    responses=REFUSALS,
    summary="Let the model name the chat",
)
async def regenerate_title(chat: ChatId, actor: Signed, parts: PartsDep) -> Response:
    """Replaces the title, also one you gave yourself. 409 while another one is made."""
    await parts.titles.propose(actor, chat, save=True)
    return json_answer(await chats.get_chat(parts.db, actor.user_id, chat))


@router.post(
    "/chats/{chat}/title/propose",
    response_model=ProposedTitle,
    responses=REFUSALS,
    summary="Ask the model for a title",
)
async def propose_title(chat: ChatId, actor: Signed, parts: PartsDep) -> Response:
    """Nothing is changed. 409 while another one is made."""
    return json_answer({"title": await parts.titles.propose(actor, chat, save=False)})
