"""The scripted model as an ASGI application, without a framework: benchmarks run through it."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from chatd.dev.scripted_model.answering import (
    TITLE_SCHEMA,
    Content,
    Text,
    answer_to,
    improvise,
    long_text,
    propose_title,
)
from chatd.dev.scripted_model.mishaps import Mishaps
from chatd.dev.scripted_model.refusal import Refusal
from chatd.dev.scripted_model.request import (
    MODEL,
    Request,
    known_model,
    no_such_model,
    read_request,
)
from chatd.dev.scripted_model.script import Drop, Fail, Step, parse
from chatd.dev.scripted_model.wire import Wire

Headers = list[tuple[bytes, bytes]]

_JSON: Headers = [(b"content-type", b"application/json")]
_EVENTS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
]
# Words that share a write when nothing asks for a pace.
_TOGETHER = 8

_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}

_MODEL = {
    "id": MODEL,
    "object": "model",
    "created": 1_767_225_600,
    "owned_by": "chatd",
    "description": "A scripted model for demos and tests: it does what the lines of the last user "
    "message that begin with / say. No language model.",
}


class ScriptedModel:
    """Without an API key it serves everybody."""

    def __init__(self, api_key: str | None = None) -> None:
        self._authorization = api_key and f"Bearer {api_key}".encode()
        self._mishaps = Mishaps()
        self._seen: deque[dict[str, Any]] = deque(maxlen=10_000)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._route(scope, receive, send)
        except Refusal as refusal:
            headers: Headers = []
            if refusal.retry_after is not None:
                headers = [(b"retry-after", str(refusal.retry_after).encode())]
            await _respond(send, refusal.status, refusal.body(), headers)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if path.startswith("/v1/"):
            self._authorize(scope)
        match method, path:
            case "POST", "/v1/chat/completions":
                await self._complete(receive, send)
            case "GET", "/v1/models":
                await _respond(send, 200, orjson.dumps({"object": "list", "data": [_MODEL]}))
            case "GET", _ if path.startswith("/v1/models/"):
                await _respond(send, 200, _model(path.removeprefix("/v1/models/")))
            case "GET", "/requests":
                await _respond(send, 200, orjson.dumps(list(self._seen)))
            case "DELETE", "/requests":
                self._seen.clear()
                self._mishaps = Mishaps()
                await _respond(send, 204, b"")
            case _:
                raise Refusal(404, f"Unknown request URL: {method} {path}", "unknown_url")

    def _authorize(self, scope: Scope) -> None:
        if self._authorization and dict(scope["headers"]).get(b"authorization") != (
            self._authorization
        ):
            raise Refusal(401, "Incorrect API key provided", "invalid_api_key")

    async def _complete(self, receive: Receive, send: Send) -> None:
        request = read_request(await _body(receive))
        if request.schema == TITLE_SCHEMA:
            # No step of a script, and none of the calls that are counted.
            await _answer(request, propose_title(request), receive, send)
            return
        self._remember(request)
        steps = parse(request.user_text)
        step = steps[request.step - 1] if request.step <= len(steps) else Step()
        course = self._mishaps.course(request, step)
        if course.silence and await _gone(receive, course.silence):
            return
        match course.failure:
            case Fail(status, _, retry_after):
                message = f"scripted failure with status {status}"
                raise Refusal(status, message, _CODES.get(status), retry_after=retry_after)
            case Drop(tokens):
                await _answer(request, Text(long_text(tokens)), receive, send, cut=True)
            case None:
                content = answer_to(request, step.answer) if steps else improvise(request)
                await _answer(request, content, receive, send)

    def _remember(self, request: Request) -> None:
        self._seen.append(
            {
                "model": request.model,
                "step": request.step,
                "time": time.time(),
                "stream": request.stream,
                "messages": len(request.messages),
                "tools": len(request.tools),
            }
        )


async def _answer(
    request: Request, content: Content, receive: Receive, send: Send, *, cut: bool = False
) -> None:
    """Send the answer; one that is cut ends without its end, and the server closes."""
    wire = Wire(request)
    gap = content.gap if isinstance(content, Text) else 0.0
    if request.stream:
        await _start(send, 200, _EVENTS)
        if gap:
            await _paced(wire.events(content), gap, receive, send)
        else:
            await _at_once(wire.events(content), send)
        if not cut:
            await send({"type": "http.response.body", "body": wire.end(content)})
        return
    if isinstance(content, Text) and gap and await _gone(receive, gap * len(content.pieces)):
        return
    body = wire.whole(content)
    await _start(send, 200, [*_JSON, (b"content-length", str(len(body)).encode())])
    body = body[: len(body) // 2] if cut else body
    await send({"type": "http.response.body", "body": body, "more_body": cut})


async def _at_once(events: Iterator[bytes], send: Send) -> None:
    """The first word on its own, the others a few to a write."""
    await _write(send, b"".join(islice(events, 2)))
    while together := b"".join(islice(events, _TOGETHER)):
        await asyncio.sleep(0)
        await _write(send, together)


async def _paced(events: Iterator[bytes], gap: float, receive: Receive, send: Send) -> None:
    """A word every `gap` seconds by the clock, so that delays do not add up."""
    gone = asyncio.ensure_future(receive())
    due = time.monotonic()
    try:
        await _write(send, b"".join(islice(events, 2)))
        for event in events:
            due += gap
            await asyncio.sleep(due - time.monotonic())
            if gone.done():
                return
            await _write(send, event)
    finally:
        gone.cancel()


async def _gone(receive: Receive, seconds: float) -> bool:
    """Wait; true at once if the client leaves."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await receive()
            return True
    return False


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _model(name: str) -> bytes:
    if not known_model(name):
        raise no_such_model(name)
    return orjson.dumps({**_MODEL, "id": name})


async def _respond(send: Send, status: int, body: bytes, headers: Headers | None = None) -> None:
    length = (b"content-length", str(len(body)).encode())
    await _start(send, status, [*_JSON, length, *(headers or [])])
    await send({"type": "http.response.body", "body": body})


async def _start(send: Send, status: int, headers: Headers) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _write(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
