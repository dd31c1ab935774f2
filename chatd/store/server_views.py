"""MCP server configs as administrators see them: no secrets, but what other tables say of them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.core.accounts import connect_path
from chatd.core.times import rfc3339
from chatd.store import hot, tables

View = dict[str, Any]
Row = tables.McpServerConfig

PLAIN = (
    "display_name",
    "slug",
    "transport",
    "url",
    "auth_type",
    "availability",
    "description",
    "icon_url",
    "enabled",
    "model_intent",
    "allow_in_plan_mode",
    "forward_coder_headers",
    "trust_annotations",
    "require_approval",
    "tool_settings",
    "tool_timeout_seconds",
    "access",
    "required_auth",
    "tool_changes",
    "oauth2_send_resource",
)
"""Fields that are stored and shown as they were sent."""

OAUTH2 = (
    "oauth2_client_id",
    "oauth2_auth_url",
    "oauth2_token_url",
    "oauth2_revocation_url",
    "oauth2_scopes",
    "oauth2_auth_method",
    "oauth2_client_key_id",
)
"""Of `oauth2` and `client_credentials`."""

OVERRIDES = ("oauth2_issuer", "oauth2_resource")
"""Of both too: what discovery finds, unless an administrator has set it, as `…_set` says."""

DISCOVERED = (
    *OVERRIDES,
    "oauth2_client_source",
    "oauth2_registration_url",
)
"""What discovery found."""

CONNECTIONS = text(
    f"""SELECT o.server_id, {hot.NEEDS_REAUTH} AS needs_reauth, o.wanted_scopes <> '' AS wants_more
    FROM oauth_tokens o WHERE o.user_id = :user"""
)

Connections = dict[UUID | None, tuple[str | None, bool]]
"""Of one user: why each has to be made anew and whether it should be for more scopes, by server;
None for the login's."""


async def views(
    session: AsyncSession, rows: Sequence[Row], caller: UUID | None = None
) -> list[View]:
    """In the order of the rows, with the caller's connections."""
    ids = [row.id for row in rows]
    connections = await _connections(session, caller) if caller is not None else {}
    groups = await _groups(session, ids)
    tools = await _known_tools(session, ids)
    return [
        _view(row, groups.get(row.id, []), tools.get(row.id)) | _connected(row, connections)
        for row in rows
    ]


async def _connections(session: AsyncSession, user_id: UUID) -> Connections:
    connection = await session.connection()
    rows = await connection.execute(CONNECTIONS, {"user": user_id})
    return {row.server_id: (row.needs_reauth, row.wants_more) for row in rows}


def _connected(row: Row, connections: Connections) -> View:
    """Whether the caller's calls will carry what the server asks for; if not, why not any more."""
    match row.auth_type:
        case "oauth2":
            place = row.id
        case "user_oidc":
            place = None
        case _:
            return {"auth_connected": True, "needs_reauth": None, "connect_url": None}
    reason, wants_more = connections.get(place, (None, False))
    connected = place in connections and reason is None
    ready = bool(row.oauth2_client_id) and (wants_more or not connected)
    return {
        "auth_connected": connected,
        "needs_reauth": reason,
        "connect_url": connect_path(row.auth_type, row.id) if ready else None,
    }


async def _groups(session: AsyncSession, ids: Sequence[UUID]) -> dict[UUID, list[str]]:
    table = tables.McpServerGroup
    found: dict[UUID, list[str]] = {}
    query = select(table).where(col(table.server_id).in_(ids)).order_by(col(table.group_id))
    for row in await session.exec(query):
        found.setdefault(row.server_id, []).append(str(row.group_id))
    return found


async def _known_tools(session: AsyncSession, ids: Sequence[UUID]) -> dict[UUID, set[str]]:
    """What the servers listed when their tools were pinned; a server never asked is not in it."""
    table = tables.ToolPin
    found: dict[UUID, set[str]] = {}
    query = select(table.server_id, table.tool_name).where(col(table.server_id).in_(ids))
    for server_id, name in await session.exec(query):
        found.setdefault(server_id, set()).add(name)
    return found


def _view(row: Row, group_ids: list[str], known_tools: set[str] | None) -> View:
    return {
        "id": str(row.id),
        **{name: getattr(row, name) for name in (*PLAIN, *OAUTH2, *DISCOVERED, "oidc_audience")},
        "oauth2_issuer_set": row.oauth2_issuer_set,
        "oauth2_resource_set": row.oauth2_resource_set,
        "has_oauth2_secret": row.oauth2_client_secret is not None,
        "api_key_header": row.api_key_header,
        "has_api_key": row.api_key_value is not None,
        "has_custom_headers": row.custom_headers is not None,
        "has_signing_secret": row.signing_secret is not None,
        "tool_allow_list": row.tool_allow_list,
        "tool_deny_list": row.tool_deny_list,
        "unknown_tools": _unknown(row, known_tools),
        "group_ids": group_ids,
        "discovered_at": rfc3339(row.discovered_at),
        "version": row.version,
        "created_by": str(row.created_by) if row.created_by else None,
        "updated_by": str(row.updated_by) if row.updated_by else None,
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
    }


def _unknown(row: Row, known_tools: set[str] | None) -> list[str]:
    """Names that rules speak of and the server does not have: most likely mistyped."""
    if known_tools is None:
        return []
    named = {*row.tool_allow_list, *row.tool_deny_list, *row.tool_settings}
    return sorted(named - known_tools)
