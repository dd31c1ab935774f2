"""Who asks: a bearer token, checked against the database with every request."""

from typing import Annotated

from fastapi import Depends
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection, Request

from chatd import logs
from chatd.api.errors import REQUEST_ID
from chatd.api.parts import Parts
from chatd.audit import By
from chatd.core.chats import Actor
from chatd.core.errors import Forbidden, Unauthorized
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

    async def __call__(self, request: HTTPConnection) -> Actor:
        """Raises `Unauthorized`."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("An API token is needed.", headers=_NO_TOKEN)
        parts: Parts = request.app.state.parts
        actor = await authenticate(parts.db, sha256(token))
        if actor is None:
            raise Unauthorized("The token is not valid.", headers=_BAD_TOKEN)
        logs.bind(user=actor.user_id)
        if "chat" in request.path_params:
            logs.bind(chat=request.path_params["chat"])
        return actor


Signed = Annotated[Actor, Depends(_Bearer())]
"""Anybody with a valid token."""


async def _admin(actor: Signed) -> Actor:
    if actor.role != "admin":
        raise Forbidden("Only administrators may do this.")
    return actor


Admin = Annotated[Actor, Depends(_admin)]


def by(request: Request, actor: Actor) -> By:
    """The author of an audit entry."""
    return By(actor.user_id, request.scope[REQUEST_ID])
