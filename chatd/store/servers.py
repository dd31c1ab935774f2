"""MCP server configs as administrators change them; secrets go in and never come out."""

from collections.abc import Iterable
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased
from sqlmodel import col, delete, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd import logs
from chatd.core.errors import BadRequest, ChatdError, Conflict, NotFound
from chatd.store import hot, oauth_servers, tables
from chatd.store.ids import new_id
from chatd.store.oauth_clients import retire_client
from chatd.store.secrets import KeyRing, Tampered, UnknownKey
from chatd.store.server_credentials import asked_anew, renamed, rewired, set_credentials
from chatd.store.server_settings import ServerSettings
from chatd.store.server_views import PLAIN, View, views

log = logs.get("servers")

_UNIQUE = "23505"
"""PostgreSQL's code for a unique violation."""


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
    if row.auth_type == "oauth2" and (rewired(row, new) or renamed(row, new)):
        try:
            await retire_client(session, keys, row)
        except (Tampered, UnknownKey) as error:
            log.warning("a client was not kept", server=row.slug, error=str(error))
    if urlsplit(row.url)[:2] != urlsplit(new.url)[:2]:
        await oauth_servers.outdate_tokens(session, row.id)
    if asked_anew(row, new):
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
    set_credentials(row, keys, new)
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
