"""Watching all chats of the signed-in user."""

from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from chatd.api.answers import Chat, Json
from chatd.api.auth import Signed
from chatd.api.parts import PartsDep
from chatd.api.sse import EventStream

router = APIRouter(tags=["chats"])


class ChatNews(BaseModel):
    """The data of one event; `kind` is also the event's name."""

    kind: Literal["created", "status_change", "title_change", "action_required", "deleted"]
    chat: Chat = Field(description="As `GET /chats/{chat}` shows it.")
    tool_calls: list[Json] = Field([], description="With `action_required`: your tools' calls.")
    open_items: list[Json] = Field([], description="With `action_required`: all that waits.")


EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: `created`, `status_change`, `title_change`, "
        "`action_required`, `deleted`, each with a `ChatNews`.",
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": "event: title_change\ndata: "
                '{"kind":"title_change","chat":{"title":"Fish"}}\n\n',
            }
        },
    }
}


@router.get(
    "/chats/watch", response_class=Response, responses=EVENTS, summary="Watch all your chats"
)
async def watch_chats(actor: Signed, parts: PartsDep) -> Response:
    """What happens to your chats from now on, sub-agents' chats included (they have a
    `parent_chat_id`), until you hang up.

    There is no backlog and no cursor: list your chats after every connect. An archived chat is
    `deleted`, an unarchived one `created`. Changes in quick succession may come as one event, with
    the chat as it is then. Upgraded to a WebSocket, each message is one event,
    `{"id": null, "event": kind, "data": {…}}`; a client that sends anything is closed.
    """
    return EventStream(await parts.watch(actor))
