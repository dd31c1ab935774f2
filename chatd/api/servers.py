"""MCP servers: administrators govern them, everybody may see those that they may use."""

import re
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Path, Request, Response

from chatd import audit
from chatd.api.admin_answers import McpServer
from chatd.api.answers import CONFLICT, FORBIDDEN, NOT_FOUND, TOO_OFTEN, json_answer
from chatd.api.auth import Admin, Signed, by
from chatd.api.fields import says
from chatd.api.limits import JsonRoute
from chatd.api.parts import Parts, PartsDep
from chatd.api.server_auth import secrets_in, to_discover
from chatd.api.server_bodies import ServerBody, ServerPatch
from chatd.audit import Target
from chatd.connecting import configured, set_found
from chatd.core.chats import Actor
from chatd.core.errors import BadRequest, Conflict
from chatd.store import policy_state, servers
from chatd.store.config import read_config
from chatd.store.oauth_servers import Configured
from chatd.store.server_views import View

PATH = "/mcp/servers"
MAX_BODY_BYTES = 2 * 1024 * 1024
"""So that what is too long is refused by the name of its field."""

DISCOVERIES_A_MINUTE = 10
"""Of one administrator: each asks other people's servers."""

router = APIRouter(prefix=PATH, tags=["mcp servers"], route_class=JsonRoute)
ADMIN = {**FORBIDDEN, **NOT_FOUND, **CONFLICT, **TOO_OFTEN}

ServerId = Annotated[
    UUID, Path(description="The MCP server config's id."), says("Invalid MCP server config ID.")
]

IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=100,
        description="The ETag that you read; 409 when there is a newer version.",
    ),
]
_ETAG = re.compile(r'(?:W/)?"([0-9]{1,18})"')
"""A proxy that compresses makes a weak one of ours; the version in it is the same."""

_FOR_ADMINS: dict[str, Any] = {
    "transport": "",
    "url": "",
    "oauth2_client_id": "",
    "oauth2_auth_url": "",
    "oauth2_token_url": "",
    "oauth2_revocation_url": "",
    "oauth2_scopes": "",
    "oauth2_auth_method": "",
    "oauth2_client_key_id": "",
    "oauth2_issuer": "",
    "oauth2_resource": "",
    "oauth2_issuer_set": False,
    "oauth2_resource_set": False,
    "oauth2_client_source": "",
    "oauth2_registration_url": "",
    "oidc_audience": "",
    "discovered_at": None,
    "api_key_header": "",
    "group_ids": [],
    "unknown_tools": [],
}
"""What members get instead."""


@router.get("", response_model=list[McpServer], summary="List MCP servers")
async def list_servers(request: Request, actor: Signed, parts: PartsDep) -> Response:
    """Administrators see all of them; members the enabled ones that they may use, without where
    they are."""
    async with parts.db.transaction() as session:
        found = await servers.list_servers(session, visible_to=seen_by(actor), caller=actor.user_id)
    return json_answer([_shown(request, view, actor) for view in found])


@router.post(
    "", status_code=201, response_model=McpServer, responses=ADMIN, summary="Add an MCP server"
)
async def create_server(
    request: Request, body: ServerBody, actor: Admin, parts: PartsDep
) -> Response:
    """With `oauth2` and nothing said about its client, the authorization server is discovered and a
    client registered there; if that fails, the answer says what was tried, and nothing is added."""
    config = await read_config(parts.db)
    settings = body.to_settings(config.new_servers.access)
    if to_discover(settings):
        await parts.rates.take("discover", actor.user_id, limit=DISCOVERIES_A_MINUTE)
        set_ = secrets_in(settings)
        author = by(request, actor)
        return tagged(await parts.oauth.discovering.add(settings, author, set_, body.id), 201)
    async with parts.db.transaction() as session:
        await policy_state.bump(session)
        made = await servers.create_server(
            session, parts.keys, settings, actor.user_id, server_id=body.id
        )
        audit.record(
            session,
            by(request, actor),
            "create",
            _target(UUID(made["id"])),
            after=made,
            secrets=secrets_in(settings),
        )
    return tagged(made, 201)


@router.get("/{server}", response_model=McpServer, responses=NOT_FOUND, summary="One MCP server")
async def get_server(
    request: Request, server: ServerId, actor: Signed, parts: PartsDep
) -> Response:
    """Its `ETag` is for `If-Match`."""
    async with parts.db.transaction() as session:
        view = await servers.get_server(
            session, server, visible_to=seen_by(actor), caller=actor.user_id
        )
    return tagged(_shown(request, view, actor))


@router.patch(
    "/{server}", response_model=McpServer, responses=ADMIN, summary="Change an MCP server"
)
async def patch_server(
    request: Request,
    server: ServerId,
    body: ServerPatch,
    actor: Admin,
    parts: PartsDep,
    if_match: IfMatch = None,
) -> Response:
    """It counts from the next tool call on, also in turns that are running."""
    expected = {"version": body.version, "If-Match": _version(if_match)}
    found = await _discovered(parts, server, body, actor, expected)
    async with parts.db.transaction() as session:
        await policy_state.bump(session)
        before = await servers.get_server(session, server, caller=actor.user_id, lock=True)
        _check_versions(before, expected)
        settings = body.to_settings(before)
        if found is None and to_discover(settings):
            raise Conflict("The MCP server config was changed meanwhile.")
        after = await servers.update_server(session, parts.keys, server, settings, actor.user_id)
        if found is not None:
            after = await set_found(session, parts.keys, after, found, actor.user_id)
        audit.record(
            session,
            by(request, actor),
            "update",
            _target(server),
            before=before,
            after=after,
            secrets=secrets_in(settings),
        )
    return tagged(after)


@router.delete("/{server}", status_code=204, responses=ADMIN, summary="Delete an MCP server")
async def delete_server(
    request: Request, server: ServerId, actor: Admin, parts: PartsDep, if_match: IfMatch = None
) -> Response:
    expected = {"If-Match": _version(if_match)}
    async with parts.db.transaction() as session:
        await policy_state.bump(session)
        before = await servers.get_server(session, server)
        _check_versions(before, expected)
        await servers.delete_server(session, server)
        audit.record(session, by(request, actor), "delete", _target(server), before=before)
    return Response(status_code=204)


async def _discovered(
    parts: Parts,
    server: UUID,
    body: ServerPatch,
    actor: Actor,
    expected: dict[str, int | None],
) -> Configured | None:
    """What discovery has to say about the server as it will be; None when it need not be asked.

    `expected` from then on has the version that it is about.
    """
    async with parts.db.transaction() as session:
        before = await servers.get_server(session, server)
    _check_versions(before, expected)
    settings = body.to_settings(before)
    anew = to_discover(settings) or body.moves_discovered(before)
    if not anew and not body.names_another(before):
        return None
    await parts.rates.take("discover", actor.user_id, limit=DISCOVERIES_A_MINUTE)
    expected["version"] = before["version"]
    issuer, scopes = settings.oauth2_issuer, (body.oauth2_scopes or "").split()
    if not anew:
        return await parts.oauth.discovering.under_name(server, issuer, scopes)
    found = await parts.oauth.discovering.find(server, settings.url, expected=issuer)
    return configured(found, scopes)


def seen_by(actor: Actor) -> UUID | None:
    """For `visible_to`: administrators see every server."""
    return actor.user_id if actor.role != "admin" else None


def _target(server_id: UUID) -> Target:
    return Target("mcp_server", server_id)


def tagged(view: View, status: int = 200) -> Response:
    answer = json_answer(view, status)
    answer.headers["ETag"] = f'"{view["version"]}"'
    return answer


def _shown(request: Request, view: View, actor: Actor) -> View:
    """A member's browser gets the icon from us: its owner must not learn who looks."""
    if actor.role == "admin":
        return view
    icon = request.app.url_path_for("get_icon", server=view["id"]) if view["icon_url"] else ""
    return view | _FOR_ADMINS | {"icon_url": icon}


def _version(if_match: str | None) -> int | None:
    """Raises `BadRequest`."""
    if if_match is None or if_match.strip() == "*":
        return None
    tag = _ETAG.fullmatch(if_match.strip())
    if tag is None:
        raise BadRequest(
            "Invalid If-Match header.",
            validations=[{"field": "If-Match", "detail": 'An ETag of ours, such as "3".'}],
        )
    return int(tag[1])


def _check_versions(view: View, expected: dict[str, int | None]) -> None:
    """Raises `Conflict`."""
    current = view["version"]
    detail = f"The current version is {current}."
    stale = [
        name for name, version in expected.items() if version is not None and version != current
    ]
    if stale:
        raise Conflict(
            "The MCP server config was changed meanwhile.",
            detail=detail,
            validations=[{"field": name, "detail": detail} for name in stale],
        )
