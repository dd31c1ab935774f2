"""Failures as answers: one shape for all of them, and nothing internal in any."""

from collections.abc import Sequence
from typing import Any, cast

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatd import logs
from chatd.api.fields import SAYS
from chatd.core.errors import ChatdError, Validation

REQUEST_ID = "chatd.request_id"
"""Where the request's id is in the ASGI scope."""

MAX_VALIDATIONS = 20
_RETRY_AFTER = {429: "5", 503: "2"}
_TOLD = {502, 503, 504}
"""Failures that say something to the client."""
_INTERNAL = "An internal error occurred."

_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
}
_MESSAGES = {
    404: "Route not found.",
    405: "Method not allowed.",
    413: "The request body is too large.",
}

_log = logs.get(__name__)


Place = tuple[str | int, ...]
"""Keys and indices that lead to a value in a request's body."""


class BadField(HTTPException):
    """A 400 that names a field: raised where FastAPI lets no failure of ours through."""

    def __init__(self, message: str, place: Place) -> None:
        super().__init__(400, message)
        self.validations = [Validation(field=_field(place) or "body", detail=message)]


def install(app: FastAPI) -> None:
    """Render our own failures, refused requests and the framework's."""
    app.add_exception_handler(ChatdError, _chatd_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(WebSocketRequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_exception)


def answer(scope: Scope, error: ChatdError) -> Response:
    """A failure as its HTTP answer."""
    if error.status >= 500 and error.status not in _TOLD:
        return _render(scope, error.status, "internal", _INTERNAL)
    return _render(
        scope,
        error.status,
        error.code,
        error.message,
        detail=error.detail,
        validations=error.validations,
        headers=error.headers,
        extra=error.extra,
    )


class Failures:
    """The last resort: what no handler knows is logged and becomes a 500 without internals."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Exception as error:
            _log.exception("request failed", error=type(error).__name__)
            if started:
                raise
            await _render(scope, 500, "internal", _INTERNAL)(scope, receive, send)


async def _chatd_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ChatdError)
    if error.status in _TOLD:
        _log.warning("request failed", error=error.code, reason=error.message)
    elif error.status >= 500:
        _log.error("request failed", error=error.code, reason=error.message, exc_info=error)
    return answer(request.scope, error)


async def _invalid_request(request: Request, error: Exception) -> Response:
    problems = cast(RequestValidationError, error).errors()
    validations = [_validation(problem) for problem in problems[:MAX_VALIDATIONS]]
    return _render(request.scope, 400, "bad_request", _message(problems), validations=validations)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    return _render(
        request.scope,
        status,
        _CODES.get(status, "error"),
        _MESSAGES.get(status, str(error.detail)),
        validations=error.validations if isinstance(error, BadField) else (),
        headers=dict(error.headers or {}),
    )


def _message(problems: Sequence[Any]) -> str:
    for problem in problems:
        if problem["type"] == SAYS:
            return str(problem["msg"])
    first = problems[0]
    if first["type"] == "json_invalid":
        return "The request body is not valid JSON."
    if first["loc"] == ("body",):
        return "The request body must be a JSON object, sent as application/json."
    return "The request has invalid values."


def _validation(problem: Any) -> Validation:
    place: tuple[Any, ...] = problem["loc"]
    if problem["type"] == "json_invalid":
        return Validation(field="body", detail=str(problem["ctx"]["error"]))
    inner = place[1:] if place[0] in ("body", "path", "query", "header") else place
    return Validation(field=_field(inner) or str(place[0]), detail=str(problem["msg"])[:500])


def _field(place: Place) -> str:
    return ".".join(map(str, place))[:200]


def _render(
    scope: Scope,
    status: int,
    code: str,
    message: str,
    *,
    detail: str = "",
    validations: Sequence[Validation] = (),
    headers: dict[str, str] | None = None,
    extra: dict[str, object] | None = None,
) -> Response:
    body = {
        **(extra or {}),
        "message": message,
        "detail": detail,
        "validations": list(validations),
        "code": code,
        "request_id": scope.get(REQUEST_ID, ""),
    }
    headers = dict(headers or {})
    if status in _RETRY_AFTER:
        headers.setdefault("Retry-After", _RETRY_AFTER[status])
    return Response(orjson.dumps(body, default=str), status, headers, "application/json")
