"""MCP servers: administrators govern them, everybody may see the enabled ones."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response

from chatd import audit
from chatd.api.admin_answers import McpServer
from chatd.api.answers import CONFLICT, FORBIDDEN, NOT_FOUND, json_answer
from chatd.api.auth import Admin, Signed, by
from chatd.api.fields import says
from chatd.api.limits import JsonRoute
from chatd.api.parts import PartsDep
from chatd.api.server_bodies import ServerBody, ServerPatch, secrets_in
from chatd.audit import Target
from chatd.core.chats import Actor
from chatd.store import policy_state, servers
from chatd.store.servers import View

router = APIRouter(prefix="/mcp/servers", tags=["mcp servers"], route_class=JsonRoute)
ADMIN = {**FORBIDDEN, **NOT_FOUND, **CONFLICT}

ServerId = Annotated[
    UUID, Path(description="The MCP server config's id."), says("Invalid MCP server config ID.")
]

_FOR_ADMINS = (
    "transport",
    "url",
    "oauth2_client_id",
    "oauth2_auth_url",
    "oauth2_token_url",
    "oauth2_scopes",
    "api_key_header",
)


@router.get("", response_model=list[McpServer], summary="List MCP servers")
async def list_servers(actor: Signed, parts: PartsDep) -> Response:
    """Administrators see all of them; members the enabled ones, without where they are."""
    async with parts.db.transaction() as session:
        found = await servers.list_servers(session, enabled_only=actor.role != "admin")
    return json_answer([_shown(view, actor) for view in found])


@router.post(
    "", status_code=201, response_model=McpServer, responses=ADMIN, summary="Add an MCP server"
)
async def create_server(
    request: Request, body: ServerBody, actor: Admin, parts: PartsDep
) -> Response:
    settings = body.to_settings()
    async with parts.db.transaction() as session:
        await policy_state.bump(session)
        made = await servers.create_server(session, parts.keys, settings, actor.user_id)
        audit.record(
            session,
            by(request, actor),
            "create",
            _target(UUID(made["id"])),
            after=made,
            secrets=secrets_in(body),
        )
    return json_answer(made, 201)


@router.get("/{server}", response_model=McpServer, responses=NOT_FOUND, summary="One MCP server")
async def get_server(server: ServerId, actor: Signed, parts: PartsDep) -> Response:
    async with parts.db.transaction() as session:
        view = await servers.get_server(session, server, enabled_only=actor.role != "admin")
    return json_answer(_shown(view, actor))


@router.patch(
    "/{server}", response_model=McpServer, responses=ADMIN, summary="Change an MCP server"
)
async def patch_server(
    request: Request, server: ServerId, body: ServerPatch, actor: Admin, parts: PartsDep
) -> Response:
    """It counts from the next tool call on, also in turns that are running."""
    async with parts.db.transaction() as session:
        await policy_state.bump(session)
        before = await servers.get_server(session, server, lock=True)
        settings = body.to_settings(before)
        after = await servers.update_server(session, parts.keys, server, settings, actor.user_id)
        audit.record(
            session,
            by(request, actor),
            "update",
            _target(server),
            before=before,
            after=after,
            secrets=secrets_in(body),
        )
    return json_answer(after)


@router.delete("/{server}", status_code=204, responses=ADMIN, summary="Delete an MCP server")
async def delete_server(
    request: Request, server: ServerId, actor: Admin, parts: PartsDep
) -> Response:
    async with parts.db.transaction() as session:
        await policy_state.bump(session)
        before = await servers.get_server(session, server)
        await servers.delete_server(session, server)
        audit.record(session, by(request, actor), "delete", _target(server), before=before)
    return Response(status_code=204)


def _target(server_id: UUID) -> Target:
    return Target("mcp_server", server_id)


def _shown(view: View, actor: Actor) -> View:
    if actor.role == "admin":
        return view
    return view | dict.fromkeys(_FOR_ADMINS, "")
