"""Sending a message: once or again, answered as JSON or as the turn's stream."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated
from uuid import UUID

import orjson
from fastapi import Header
from starlette.requests import Request
from starlette.responses import Response

from chatd.api.answers import Json, json_answer
from chatd.api.attaching import keeping_files
from chatd.api.fields import says
from chatd.api.parts import Parts
from chatd.api.sse import wants_stream
from chatd.commands import Submitted
from chatd.core.chats import Actor, Once
from chatd.core.messages import Part
from chatd.store.files import attached

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x20-\x7e]{1,255}$",
        description="Repeat the request safely: for 24 hours, the same key and body give the same "
        "turn, and another body a 409.",
    ),
    says("Invalid Idempotency-Key: 1 to 255 printable ASCII characters."),
]
Accept = Annotated[
    str | None, Header(description="`text/event-stream`: answer with the turn's events.")
]

EVENTS: Json = {
    "description": "The turn as JSON, or as server-sent events when asked for.",
    "content": {
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": 'id: 4-2-1-7\nevent: message_part\ndata: {"type":"message_part"}\n\n',
        }
    },
}


async def to_once(request: Request, key: str | None) -> Once | None:
    """The key with what it stands for: the path and the body, however that was spelled."""
    if key is None:
        return None
    said = await request.json() if await request.body() else None
    canonical = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    return Once(request.scope["path"], key, hashlib.sha256(canonical).digest())


async def submit(
    parts: Parts,
    actor: Actor,
    chat_id: UUID,
    accepted: Callable[[], Awaitable[Submitted]],
    *,
    accept: str | None,
    status: int = 201,
    content: Sequence[Part] = (),
) -> Response:
    """Run the command; what fails before its commit is plain JSON in either case.

    The files that the `content` names are kept with the chat.
    """
    command = keeping_files(parts, attached(content), accepted)
    if wants_stream(accept):
        return await parts.streams.submitted(chat_id, parts.permits.admit(actor), command, status)
    return json_answer((await command()).body, status)
