"""What a request may hold: so many bytes, JSON, and text that PostgreSQL can store."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, cast

import orjson
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatd.api.errors import BadField, Place, answer
from chatd.core.errors import BadRequest, TooLarge
from chatd.core.text import holds

UNUSABLE = "The request holds a NUL or another character that cannot be stored."
TOO_DEEP = "The request is nested too deeply."
MAX_DEPTH = 100
"""Lists and objects in each other: twice as many could be read, but not written again."""
_ESCAPED_NUL = b"\\u0000"


class Limits:
    """Refuses a body over the limit, announced or streamed, and a NUL in path or query.

    `larger` are the limits of the paths that have one of their own, and of what is directly below
    those that end in a slash.
    """

    def __init__(
        self, app: ASGIApp, max_body_bytes: int, larger: Mapping[str, int] | None = None
    ) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.larger = larger or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if b"%00" in scope["query_string"] or not holds(scope["path"]):
            await answer(scope, BadRequest(UNUSABLE))(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        if _announced(scope) > limit:
            await answer(scope, TooLarge())(scope, receive, send)
            return
        read = 0

        async def count() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                # FastAPI lets this class through from where it reads the body, and no other.
                raise HTTPException(413)
            return message

        await self.app(scope, count, send)

    def _limit(self, path: str) -> int:
        own = self.larger.get(path)
        if own is None:
            own = self.larger.get(path[: path.rfind("/") + 1], self.max_body_bytes)
        return own


class JsonRoute(APIRoute):
    """Reads bodies with orjson: strict JSON in UTF-8, no NaN, no lone surrogate."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return handle_strictly


class _StrictRequest(Request):
    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            body = await self.body()
            self._json = orjson.loads(body)
            if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _deeper(self._json, MAX_DEPTH):
                raise HTTPException(400, TOO_DEEP)
            if _ESCAPED_NUL in body and (place := _unusable(self._json)) is not None:
                raise BadField(UNUSABLE, place)
        return self._json


def _unusable(value: object) -> Place | None:
    """Where the first text is that cannot be stored; a key that is one is not named itself."""
    if isinstance(value, str):
        return None if holds(value) else ()
    if isinstance(value, dict):
        items = cast(dict[str, object], value).items()
        if not all(holds(key) for key, _ in items):
            return ()
    elif isinstance(value, list):
        items = enumerate(cast(list[object], value))
    else:
        return None
    for key, item in items:
        if (inner := _unusable(item)) is not None:
            return (key, *inner)
    return None


def _deeper(value: object, levels: int) -> bool:
    if isinstance(value, dict):
        inner = list(cast(dict[str, object], value).values())
    elif isinstance(value, list):
        inner = cast(list[object], value)
    else:
        return False
    return not levels or any(_deeper(item, levels - 1) for item in inner)


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
