"""Connecting to MCP servers with OAuth, as programs ask for it; `oauth_browser` has the pages."""

from datetime import datetime
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from chatd.api.admin import AdminBody
from chatd.api.admin_answers import McpServer
from chatd.api.answers import (
    CONFLICT,
    FORBIDDEN,
    NOT_FOUND,
    TOO_OFTEN,
    json_answer,
)
from chatd.api.auth import Admin, Signed, by
from chatd.api.fields import Flag
from chatd.api.limits import JsonRoute
from chatd.api.parts import PartsDep
from chatd.api.servers import DISCOVERIES_A_MINUTE, PATH, ServerId, tagged
from chatd.connecting import client_metadata
from chatd.core.errors import NotFound
from chatd.core.times import rfc3339

router = APIRouter(prefix=PATH, tags=["mcp servers"], route_class=JsonRoute)
public = APIRouter(prefix=PATH)

CONNECTS_A_MINUTE = 20
"""Of one user; disconnecting as often, counted apart."""


class ConnectBody(AdminBody):
    return_to: str = Field(
        default="",
        max_length=2048,
        description="A path of this site, where the browser goes in the end. Empty: a page that"
        ' tells its opener `{type: "mcp-oauth2-complete", serverID}` and closes.',
    )


class DiscoverBody(AdminBody):
    register_client: Flag = Field(
        default=False, description="Also register anew where the client is still good."
    )


class ConnectAnswer(BaseModel):
    connect_url: str = Field(description="To open in the user's browser, once.")
    expires_at: datetime


class DisconnectAnswer(BaseModel):
    token_revoked: bool = Field(description="Also at the authorization server.")
    token_revocation_error: str = Field(description="Why not there; here it is gone in any case.")


@router.post(
    "/{server}/oauth2/connect",
    status_code=201,
    response_model=ConnectAnswer,
    responses={**NOT_FOUND, **TOO_OFTEN},
    summary="Connect your account to an MCP server",
)
async def connect(
    server: ServerId, actor: Signed, parts: PartsDep, body: ConnectBody | None = None
) -> Response:
    """Open `connect_url` in a window of its own within ten minutes. It asks for consent, leads to
    the authorization server and back. It is for this user alone: whoever has the link acts as them.

    A browser that is signed in may also open `GET` of this path, with `?return_to=`.
    """
    await parts.rates.take("connect", actor.user_id, limit=CONNECTS_A_MINUTE)
    return_to = body.return_to if body is not None else ""
    ticket = await parts.oauth.connecting.ticket(server, actor.user_id, return_to=return_to)
    told = {"connect_url": ticket.url, "expires_at": rfc3339(ticket.expires_at)}
    answer = json_answer(told, 201)
    answer.headers["Cache-Control"] = "no-store"
    return answer


@router.delete(
    "/{server}/oauth2/disconnect",
    response_model=DisconnectAnswer,
    responses=TOO_OFTEN,
    summary="Disconnect your account from an MCP server",
)
async def disconnect(
    request: Request, server: ServerId, actor: Signed, parts: PartsDep
) -> Response:
    """Harmless a second time. Your turns go on without that server."""
    await parts.rates.take("disconnect", actor.user_id, limit=CONNECTS_A_MINUTE)
    ended = await parts.oauth.disconnecting.disconnect(server, by(request, actor))
    return json_answer(
        {
            "token_revoked": ended.token_revoked,
            "token_revocation_error": ended.token_revocation_error,
        }
    )


@router.post(
    "/{server}/oauth2/discover",
    response_model=McpServer,
    responses={**FORBIDDEN, **NOT_FOUND, **CONFLICT, **TOO_OFTEN},
    summary="Discover an MCP server's authorization server again",
)
async def discover(
    request: Request,
    server: ServerId,
    actor: Admin,
    parts: PartsDep,
    body: DiscoverBody | None = None,
) -> Response:
    """Endpoints are read anew. Another authorization server gets a client of its own; tokens of the
    one before stay in use until they fail, then their users have to connect again."""
    await parts.rates.take("discover", actor.user_id, limit=DISCOVERIES_A_MINUTE)
    register = body is not None and body.register_client
    view = await parts.oauth.discovering.again(server, by(request, actor), register=register)
    return tagged(view)


@public.get("/{server}/oauth2/client-metadata.json", include_in_schema=False)
async def client_document(server: UUID, parts: PartsDep) -> Response:
    """For authorization servers that take a document for a registration: our client id is its URL.
    It is the same for every id, so it tells nobody which servers there are."""
    document = client_metadata(parts.oauth.access_url, server)
    if document is None:
        raise NotFound
    answer = json_answer(document)
    answer.headers["Cache-Control"] = "public, max-age=3600"
    answer.headers["Access-Control-Allow-Origin"] = "*"
    return answer
