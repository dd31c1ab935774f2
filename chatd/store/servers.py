"""MCP server configs as administrators see and change them; secrets go in and never come out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

import orjson
from pydantic import SecretStr
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.core.errors import BadRequest, ChatdError, Conflict, NotFound
from chatd.core.servers import Approval, AuthType, Availability, ToolSetting, Transport
from chatd.core.times import rfc3339
from chatd.store import tables
from chatd.store.secrets import KeyRing

View = dict[str, Any]

_TABLE = "mcp_server_configs"
_UNIQUE = "23505"
"""PostgreSQL's code for a unique violation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What an administrator sets, checked as a whole. A secret that is None stays as it is."""

    display_name: str
    slug: str
    transport: Transport
    url: str
    auth_type: AuthType
    availability: Availability
    description: str = ""
    icon_url: str = ""
    api_key_header: str = ""
    api_key_value: SecretStr | None = None
    custom_headers: Mapping[str, SecretStr] | None = None
    tool_allow_list: tuple[str, ...] = ()
    tool_deny_list: tuple[str, ...] = ()
    enabled: bool = False
    model_intent: bool = False
    allow_in_plan_mode: bool = False
    forward_coder_headers: bool = False
    trust_annotations: bool = False
    require_approval: Approval = "never"
    tool_settings: Mapping[str, ToolSetting] = field(default_factory=dict[str, ToolSetting])
    tool_timeout_seconds: int = 60


_PLAIN = (
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
)


async def list_servers(session: AsyncSession, *, enabled_only: bool) -> list[View]:
    """By slug."""
    table = tables.McpServerConfig
    query = select(table).order_by(col(table.slug))
    if enabled_only:
        query = query.where(table.enabled)
    return [_view(row) for row in await session.exec(query)]


async def get_server(
    session: AsyncSession, server_id: UUID, *, enabled_only: bool = False, lock: bool = False
) -> View:
    """Raises `NotFound`."""
    row = await session.get(tables.McpServerConfig, server_id, with_for_update=lock)
    if row is None or (enabled_only and not row.enabled):
        raise NotFound
    return _view(row)


async def create_server(
    session: AsyncSession, keys: KeyRing, new: ServerSettings, by: UUID | None = None
) -> View:
    """Raises `Conflict` when the slug is taken."""
    row = tables.McpServerConfig(
        display_name=new.display_name,
        slug=new.slug,
        transport=new.transport,
        url=new.url,
        created_by=by,
    )
    session.add(row)
    taken = "MCP server config already exists."
    return await _save(session, keys, row, new, by, taken=taken)


async def update_server(
    session: AsyncSession,
    keys: KeyRing,
    server_id: UUID,
    new: ServerSettings,
    by: UUID | None = None,
) -> View:
    """Raises `NotFound`, or `Conflict` when the slug is taken."""
    row = await session.get(tables.McpServerConfig, server_id, with_for_update=True)
    if row is None:
        raise NotFound
    row.version += 1
    taken = "MCP server config slug already exists."
    return await _save(session, keys, row, new, by, taken=taken)


async def delete_server(session: AsyncSession, server_id: UUID) -> None:
    """Raises `NotFound`."""
    row = await session.get(tables.McpServerConfig, server_id, with_for_update=True)
    if row is None:
        raise NotFound
    await session.delete(row)
    await session.flush()


async def _save(
    session: AsyncSession,
    keys: KeyRing,
    row: tables.McpServerConfig,
    new: ServerSettings,
    by: UUID | None,
    *,
    taken: str,
) -> View:
    for name in _PLAIN:
        setattr(row, name, getattr(new, name))
    row.tool_allow_list = list(new.tool_allow_list)
    row.tool_deny_list = list(new.tool_deny_list)
    row.updated_by = by
    row.updated_at = cast(Any, func.clock_timestamp())
    _set_credentials(row, keys, new)
    try:
        await session.flush()
    except IntegrityError as error:
        raise _refusal(error, taken) from error
    await session.refresh(row)
    return _view(row)


def _refusal(error: IntegrityError, taken: str) -> ChatdError:
    if getattr(error.orig, "sqlstate", None) == _UNIQUE:
        return Conflict(taken)
    return BadRequest("Invalid MCP server config.")


def _set_credentials(row: tables.McpServerConfig, keys: KeyRing, new: ServerSettings) -> None:
    """Only those of the auth type: what belongs to another one must not come back later."""

    def seal(column: str, secret: str | None) -> None:
        sealed = None, None
        if secret:
            sealed = keys.encrypt(secret, table=_TABLE, column=column, row_id=row.id)
        setattr(row, column, sealed[0])
        setattr(row, f"{column}_key_id", sealed[1])

    if new.auth_type == "api_key":
        row.api_key_header = new.api_key_header
        if new.api_key_value is not None:
            seal("api_key_value", new.api_key_value.get_secret_value())
    else:
        row.api_key_header = ""
        seal("api_key_value", None)
    if new.auth_type != "custom_headers":
        seal("custom_headers", None)
    elif new.custom_headers is not None:
        plain = {name: value.get_secret_value() for name, value in new.custom_headers.items()}
        seal("custom_headers", orjson.dumps(plain).decode() if plain else None)
    if new.auth_type != "oauth2":
        row.oauth2_client_id = row.oauth2_auth_url = row.oauth2_token_url = ""
        row.oauth2_revocation_url = row.oauth2_scopes = ""
        seal("oauth2_client_secret", None)


def _view(row: tables.McpServerConfig) -> View:
    return {
        "id": str(row.id),
        **{name: getattr(row, name) for name in _PLAIN},
        "oauth2_client_id": row.oauth2_client_id,
        "has_oauth2_secret": row.oauth2_client_secret is not None,
        "oauth2_auth_url": row.oauth2_auth_url,
        "oauth2_token_url": row.oauth2_token_url,
        "oauth2_scopes": row.oauth2_scopes,
        "api_key_header": row.api_key_header,
        "has_api_key": row.api_key_value is not None,
        "has_custom_headers": row.custom_headers is not None,
        "tool_allow_list": row.tool_allow_list,
        "tool_deny_list": row.tool_deny_list,
        "auth_connected": row.auth_type != "oauth2",
        "version": row.version,
        "created_by": str(row.created_by) if row.created_by else None,
        "updated_by": str(row.updated_by) if row.updated_by else None,
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
    }
