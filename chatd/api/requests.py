"""Every request has an id, one log line and its place in the metrics."""

import re
import time
from uuid import uuid4

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatd import logs
from chatd.api.errors import REQUEST_ID
from chatd.telemetry import REQUEST_SECONDS, REQUESTS, labelled

_HEADER = b"x-request-id"
_SANE = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_PROBES = {"/healthz", "/readyz"}

_log = logs.get(__name__)


class Requests:
    """Takes the client's `X-Request-Id` if it is a sane one, else makes one; answers carry it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = scope[REQUEST_ID] = _request_id(scope)
        began = time.perf_counter()
        answered = 0.0
        status = 0

        async def sign(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status = message["status"]
                answered = time.perf_counter() - began
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        with logs.context(request_id=request_id):
            try:
                await self.app(scope, receive, sign)
            finally:
                _note(scope, status, answered, time.perf_counter() - began)
                logs.unbind("user", "chat")


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == _HEADER and _SANE.fullmatch(value):
            return value.decode()
    return uuid4().hex


def _note(scope: Scope, status: int, answered: float, took: float) -> None:
    route = _template(scope)
    labelled(REQUESTS, scope["method"], route, str(status)).inc()
    labelled(REQUEST_SECONDS, route).observe(answered)
    write = _log.debug if scope["path"] in _PROBES else _log.info
    write(
        "request",
        method=scope["method"],
        path=scope["path"][:500],
        status=status,
        duration_ms=round(took * 1000, 2),
    )


def _template(scope: Scope) -> str:
    """The route's pattern (without the common prefix), so that ids do not become labels."""
    route = scope.get("route")
    return getattr(route, "path", "none")
