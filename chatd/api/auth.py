"""Who asks: a bearer token or the cookie of a session, checked with every request."""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from typing import Annotated

from fastapi import Depends
from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection, Request

from chatd import logs
from chatd.api.errors import REQUEST_ID
from chatd.api.parts import Parts
from chatd.api.session_cookie import (
    CSRF_HEADER,
    HAND_OUT_S,
    HOST_PREFIX,
    NAME,
    SLOT,
    Cookie,
    Slot,
    cookie_of,
    from_our_page,
    may_change,
)
from chatd.api.signed_in import signed_in
from chatd.audit import By
from chatd.core.chats import Actor
from chatd.core.errors import Forbidden, Unauthorized, Unavailable
from chatd.store.sessions import SignedIn, rotate_session
from chatd.store.tokens import authenticate, sha256

_NO_TOKEN = {"WWW-Authenticate": "Bearer"}
_BAD_TOKEN = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
"""RFC 6750, section 3.1: no error code when the request held no token at all."""


class _Bearer(SecurityBase):
    def __init__(self) -> None:
        self.model = HTTPBearer(
            description="An API token, as `chatd admin create-token` shows it once."
        )
        self.scheme_name = "bearer"

    async def __call__(self) -> None:
        """For the OpenAPI document alone; see `_signed`."""


class _Session(SecurityBase):
    def __init__(self) -> None:
        self.model = APIKey.model_validate(
            {
                "in": APIKeyIn.cookie,
                "name": HOST_PREFIX + NAME,
                "description": "Of a browser that signed in (`GET /login`). What is not GET or HEAD"
                " also needs `X-CSRF-Token`, which `GET /users/me` tells, and our own or a listed"
                f" `Origin`. On plain http its name is `{NAME}`.",
            }
        )
        self.scheme_name = "session"

    async def __call__(self) -> None:
        """For the OpenAPI document alone; see `_signed`."""


async def _signed(
    request: HTTPConnection,
    _bearer: Annotated[None, Depends(_Bearer())],
    _session: Annotated[None, Depends(_Session())],
) -> Actor:
    """A token counts for more than a cookie: who sends both means the former.

    All in one dependency: each one more is 10 us of every request.
    """
    parts: Parts = request.app.state.parts
    token = _token(request)
    if token:
        actor = await authenticate(parts.db, sha256(token))
        if actor is None:
            raise Unauthorized("The token is not valid.", headers=_BAD_TOKEN)
    elif (cookie := cookie_of(request, parts.signing_in.access_url)) is not None:
        actor = await _signed_in(request, parts, cookie)
    else:
        raise Unauthorized("An API token is needed.", headers=_NO_TOKEN)
    logs.bind(user=actor.user_id)
    if "chat" in request.path_params:
        logs.bind(chat=request.path_params["chat"])
    return actor


def _token(request: HTTPConnection) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def _signed_in(request: HTTPConnection, parts: Parts, cookie: Cookie) -> Actor:
    found = await signed_in(request, parts, cookie)
    if found is None:
        raise Unauthorized("You are not signed in any more.", headers=_NO_TOKEN)
    if may_change(request.scope):
        _check_sender(request, parts, found)
    slot: Slot | None = request.scope.get(SLOT)
    if slot is not None:
        slot.used = True
        slot.csrf = cookie.csrf
        if found.due:
            until = monotonic() + HAND_OUT_S
            slot.hand_out(await _next_cookie(parts, cookie, found), until)
    return replace(found.actor, session_id=found.session_id)


def _check_sender(request: HTTPConnection, parts: Parts, found: SignedIn) -> None:
    """A browser sends the cookie for any page; only ours can send these."""
    if not from_our_page(request.scope, parts.origins):
        raise Forbidden("This origin may not use your session.")
    if request.scope["type"] == "websocket":
        return  # a browser lets no page add a header there, but always names the page
    if not found.sent_by_us(request.headers.get(CSRF_HEADER, "")):
        raise Forbidden(
            "The header X-CSRF-Token is missing or wrong.", detail="GET /users/me tells it."
        )


async def _next_cookie(parts: Parts, cookie: Cookie, found: SignedIn) -> str:
    """Empty when another request has just handed it out; the one before will do for a while."""
    token: str | None = None
    with suppress(Unavailable):
        token = await rotate_session(parts.db, found.session_id, cookie.token)
    if token is None:
        return ""
    left = (found.expires_at - datetime.now(UTC)).total_seconds()
    return Cookie(token, cookie.csrf).header(parts.signing_in.access_url, left)


Signed = Annotated[Actor, Depends(_signed)]
"""Anybody with a valid token, or signed in."""


async def _admin(actor: Signed) -> Actor:
    if actor.role != "admin":
        raise Forbidden("Only administrators may do this.")
    return actor


Admin = Annotated[Actor, Depends(_admin)]


def by(request: Request, actor: Actor) -> By:
    """The author of an audit entry."""
    return By(actor.user_id, request.scope[REQUEST_ID])
