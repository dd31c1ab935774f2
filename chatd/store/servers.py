"""MCP server configs as administrators change them; secrets go in and never come out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast
from urllib.parse import urlsplit
from uuid import UUID

import orjson
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased
from sqlmodel import col, delete, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd import logs
from chatd.core.errors import BadRequest, ChatdError, Conflict, NotFound
from chatd.core.oauth import AuthMethod
from chatd.core.servers import (
    Access,
    Approval,
    AuthType,
    Availability,
    ToolChanges,
    ToolSetting,
    Transport,
)
from chatd.store import hot, oauth_servers, tables
from chatd.store.ids import new_id
from chatd.store.oauth_clients import retire_client
from chatd.store.secrets import KeyRing, Tampered, UnknownKey
from chatd.store.server_views import DISCOVERED, OAUTH2, PLAIN, View, views

log = logs.get("servers")

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
    oauth2_client_id: str = ""
    oauth2_client_secret: SecretStr | None = None
    oauth2_auth_url: str = ""
    oauth2_token_url: str = ""
    oauth2_revocation_url: str = ""
    oauth2_scopes: str = ""
    oauth2_auth_method: AuthMethod | Literal[""] = ""
    oauth2_client_key_id: str = ""
    oauth2_issuer: str = ""  # for `oauth2` it is discovered
    oidc_audience: str = ""
    api_key_header: str = ""
    api_key_value: SecretStr | None = None
    custom_headers: Mapping[str, SecretStr] | None = None
    tool_allow_list: tuple[str, ...] = ()
    tool_deny_list: tuple[str, ...] = ()
    enabled: bool = False
    model_intent: bool = False
    allow_in_plan_mode: bool = False
    forward_coder_headers: bool = False
    signing_secret: SecretStr | None = None
    trust_annotations: bool = False
    require_approval: Approval = "never"
    tool_settings: Mapping[str, ToolSetting] = field(default_factory=dict[str, ToolSetting])
    tool_timeout_seconds: int = 60
    access: Access = "everyone"
    group_ids: tuple[UUID, ...] = ()
    required_auth: bool = False
    tool_changes: ToolChanges = "follow"


async def list_servers(
    session: AsyncSession, *, visible_to: UUID | None = None, caller: UUID | None = None
) -> list[View]:
    """By slug, with the caller's connections; with `visible_to` only the enabled ones that this
    user may use."""
    server = aliased(tables.McpServerConfig, name="s")
    query = select(server).order_by(col(server.slug))
    if visible_to is not None:
        query = query.where(_VISIBLE.bindparams(user=visible_to))
    return await views(session, (await session.exec(query)).all(), caller or visible_to)


async def get_server(
    session: AsyncSession,
    server_id: UUID,
    *,
    visible_to: UUID | None = None,
    caller: UUID | None = None,
    lock: bool = False,
) -> View:
    """With the caller's connection. Raises `NotFound`, also for one that `visible_to` may not
    use."""
    server = aliased(tables.McpServerConfig, name="s")
    query = select(server).where(server.id == server_id)
    if visible_to is not None:
        query = query.where(_VISIBLE.bindparams(user=visible_to))
    if lock:
        query = query.with_for_update()
    row = (await session.exec(query)).one_or_none()
    if row is None:
        raise NotFound
    return (await views(session, [row], caller or visible_to))[0]


_VISIBLE = text("s.enabled AND " + hot.MAY_USE.format(user=":user"))


async def create_server(
    session: AsyncSession,
    keys: KeyRing,
    new: ServerSettings,
    by: UUID | None = None,
    *,
    server_id: UUID | None = None,
) -> View:
    """`server_id`: one that was promised. Raises `Conflict` when the slug is taken, `BadRequest`
    for unknown groups."""
    row = tables.McpServerConfig(
        id=server_id or new_id(),
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
    """Raises `NotFound`, `Conflict` when the slug is taken, `BadRequest` for unknown groups."""
    row = await session.get(tables.McpServerConfig, server_id, with_for_update=True)
    if row is None:
        raise NotFound
    row.version += 1
    await _part_from_tokens(session, keys, row, new)
    taken = "MCP server config slug already exists."
    return await _save(session, keys, row, new, by, taken=taken)


async def _part_from_tokens(
    session: AsyncSession, keys: KeyRing, row: tables.McpServerConfig, new: ServerSettings
) -> None:
    """Before a change: a token goes only where it was granted for, by the client it is bound to."""
    if row.auth_type != new.auth_type:
        await oauth_servers.forget_tokens(session, row.id)
        return
    if row.auth_type == "oauth2" and _rewired(row, new):
        try:
            await retire_client(session, keys, row)
        except (Tampered, UnknownKey) as error:
            log.warning("a client was not kept", server=row.slug, error=str(error))
    if urlsplit(row.url)[:2] != urlsplit(new.url)[:2]:
        await oauth_servers.outdate_tokens(session, row.id)
    set_anew = (*OAUTH2, "oidc_audience", "url")
    if new.oauth2_client_secret is not None or any(
        getattr(row, name) != getattr(new, name) for name in set_anew
    ):
        await oauth_servers.forget_own_tokens(session, row.id)


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
    for name in PLAIN:
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
    await _set_groups(session, row.id, new.group_ids)
    await session.refresh(row)
    return (await views(session, [row], by))[0]


def _refusal(error: IntegrityError, taken: str) -> ChatdError:
    if getattr(error.orig, "sqlstate", None) == _UNIQUE:
        return Conflict(taken, validations=[{"field": "slug", "detail": "It is taken."}])
    return BadRequest("Invalid MCP server config.")


async def _set_groups(session: AsyncSession, server_id: UUID, wanted: Iterable[UUID]) -> None:
    """Raises `BadRequest` naming the groups that do not exist."""
    group, link = tables.Group, tables.McpServerGroup
    ids = list(dict.fromkeys(wanted))
    query = select(group.id).where(col(group.id).in_(ids)).with_for_update(read=True)
    known = set(await session.exec(query))
    if missing := ", ".join(str(group_id) for group_id in ids if group_id not in known):
        raise BadRequest(
            "One or more group IDs are invalid.",
            detail=f"Invalid IDs: {missing}",
            validations=[{"field": "group_ids", "detail": f"unknown: {missing}"}],
        )
    await session.exec(delete(link).where(col(link.server_id) == server_id))
    session.add_all(link(server_id=server_id, group_id=group_id) for group_id in ids)
    await session.flush()


def _set_credentials(row: tables.McpServerConfig, keys: KeyRing, new: ServerSettings) -> None:
    """Only those of the auth type: what belongs to another one must not come back later."""
    oauth2 = new.auth_type in ("oauth2", "client_credentials")
    _forget_discovered(row, new)
    for name in OAUTH2:
        setattr(row, name, getattr(new, name) if oauth2 else "")
    if new.auth_type == "client_credentials":
        row.oauth2_issuer = new.oauth2_issuer
    row.oidc_audience = new.oidc_audience if new.auth_type == "user_oidc" else ""
    _seal(row, keys, "oauth2_client_secret", _plain(new.oauth2_client_secret) if oauth2 else "")
    api_key = new.auth_type == "api_key"
    row.api_key_header = new.api_key_header if api_key else ""
    _seal(row, keys, "api_key_value", _plain(new.api_key_value) if api_key else "")
    own = new.auth_type == "custom_headers"
    _seal(row, keys, "custom_headers", _headers(new.custom_headers) if own else "")
    _seal(row, keys, "signing_secret", _plain(new.signing_secret))


def _forget_discovered(row: tables.McpServerConfig, new: ServerSettings) -> None:
    """What is set by hand is no longer as discovery found it."""
    if new.auth_type != "oauth2":
        for name in DISCOVERED:
            setattr(row, name, "")
        row.oauth2_sends_issuer, row.discovered_at = False, None
    elif _moved(row, new):
        row.oauth2_issuer = row.oauth2_registration_url = ""
        row.oauth2_sends_issuer = False
    if _rewired(row, new):
        row.oauth2_client_source, row.discovered_at = "", None


def _moved(row: tables.McpServerConfig, new: ServerSettings) -> bool:
    """To another authorization server."""
    wired = ("oauth2_auth_url", "oauth2_token_url")
    return any(getattr(row, name) != getattr(new, name) for name in wired)


def _rewired(row: tables.McpServerConfig, new: ServerSettings) -> bool:
    """Another client, or the client of another server."""
    return row.oauth2_client_id != new.oauth2_client_id or _moved(row, new)


def _seal(row: tables.McpServerConfig, keys: KeyRing, column: str, secret: str | None) -> None:
    """None: as it is; empty: none any more."""
    if secret is None:
        return
    sealed = None, None
    if secret:
        sealed = keys.encrypt(secret, table=_TABLE, column=column, row_id=row.id)
    setattr(row, column, sealed[0])
    setattr(row, f"{column}_key_id", sealed[1])


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None


def _headers(values: Mapping[str, SecretStr] | None) -> str | None:
    if values is None:
        return None
    plain = {name: value.get_secret_value() for name, value in values.items()}
    return orjson.dumps(plain).decode() if plain else ""
