"""Pinned tools: what fresh lists did to them, and what administrators make of that.

Whoever writes pins holds the lock of their server's row, so that a change is decided, written and
audited once, whichever processes saw it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy.orm import Mapped
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.core.errors import Conflict, NotFound
from chatd.core.pins import MAX_SEEN, Change, Pin, changed_fields, definition_of, spec_of
from chatd.core.times import rfc3339
from chatd.core.tools import JsonObject
from chatd.store import policy_state, tables
from chatd.store.audit import Entry, add_entry
from chatd.store.db import Database

Pins = Mapping[str, Pin]
View = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PinMove:
    """The hash a tool was pinned by before an administrator's word, and after; None: forgotten."""

    tool: str
    before: str
    after: str | None
    fields: Sequence[str] = ()


async def read_pins(db: Database, server_id: UUID, listed: Mapping[str, str]) -> Pins:
    """All of a server's, by name; definitions only of tools that `listed` (name to hash) has
    otherwise. Raises `Unavailable`."""
    async with db.transaction() as session:
        return await _pins(session, server_id, listed)


async def write_changes(
    db: Database,
    server_id: UUID,
    version: int,
    listed: Mapping[str, str],
    decide: Callable[[Pins], Iterable[Change]],
) -> Pins | None:
    """Write what `decide` makes of the pins as they are under the lock; answers the pins then.

    None, and nothing written, when this is no longer the server's configuration: the pins are then
    for those to move who know the new one. A tool that is withdrawn moves policy, for lists with it
    are at hand everywhere. Raises `Unavailable`.
    """
    async with db.transaction() as session:
        written = await _decided(session, server_id, version, listed, decide, telling=False)
    if written is not _UNTOLD:
        return written
    async with db.transaction() as session:
        await policy_state.lock(session)
        return await _decided(session, server_id, version, listed, decide, telling=True)


async def _decided(
    session: AsyncSession,
    server_id: UUID,
    version: int,
    listed: Mapping[str, str],
    decide: Callable[[Pins], Iterable[Change]],
    *,
    telling: bool,
) -> Pins | None:
    """`_UNTOLD`, and nothing written, when policy has to move and `telling` has not locked it."""
    row = await session.get(tables.McpServerConfig, server_id, with_for_update=_NO_KEY)
    if row is None or row.version != version:
        return None
    pins = await _pins(session, server_id, listed)
    changes = {change.spec.name: change for change in decide(pins)}
    if row.tool_changes == "quarantine" and _withdrawn(pins, changes.values()):
        if not telling:
            return _UNTOLD
        await policy_state.bump(session)
        row.version += 1
    rows = await _locked(session, server_id, changes)
    for name, change in changes.items():
        _write(session, server_id, rows.get(name), change)
    await session.flush()
    return await _pins(session, server_id, listed)


_UNTOLD: Pins = {}


def _withdrawn(pins: Pins, changes: Iterable[Change]) -> bool:
    """Whether a tool that was served is not any more. What has waited before is served nowhere: a
    server that says something else each time moves policy once."""
    flagged = [pins.get(change.spec.name) for change in changes if change.kind == "flag"]
    return any(pin and pin.definition_hash and not pin.pending_hash for pin in flagged)


async def list_pins(
    session: AsyncSession, server_id: UUID, names: Collection[str] | None = None
) -> list[View]:
    """By name; None: all. Raises `NotFound` when there is no such server."""
    if await session.get(tables.McpServerConfig, server_id) is None:
        raise NotFound
    pin = tables.ToolPin
    query = select(pin).where(pin.server_id == server_id).order_by(col(pin.tool_name))
    if names is not None:
        query = query.where(col(pin.tool_name).in_(names))
    return [_view(row) for row in await session.exec(query)]


async def get_pin(session: AsyncSession, server_id: UUID, tool: str) -> tables.ToolPin:
    """Raises `NotFound`."""
    row = await session.get(tables.ToolPin, (server_id, tool))
    if row is None:
        raise NotFound
    return row


async def accept(
    session: AsyncSession, server_id: UUID, accepted: Mapping[str, str], by: UUID
) -> list[PinMove]:
    """Pin what waits for an administrator, all of it or nothing; `accepted`: name to hash.

    Raises `NotFound` for a tool without a pin, `Conflict` where a hash is not what waits: nobody
    accepts what they have not looked at.
    """
    await _lock_server(session, server_id)
    rows = await _locked(session, server_id, accepted)
    if accepted.keys() - rows.keys():
        raise NotFound
    stale = sorted(name for name, row in rows.items() if row.changed_hash != accepted[name])
    if stale:
        waits = "This is not the change that waits to be accepted; look at it again."
        raise Conflict(waits, detail=", ".join(stale))
    now = (await session.exec(select(func.clock_timestamp()))).one()
    return [_accept(row, by, now) for _, row in sorted(rows.items())]


async def forget(session: AsyncSession, server_id: UUID, tool: str) -> PinMove:
    """The next list pins the tool anew. Raises `NotFound`."""
    await _lock_server(session, server_id)
    row = await get_pin(session, server_id, tool)
    await session.delete(row)
    return PinMove(tool, row.definition_hash, None)


_NO_KEY = {"key_share": True}
"""`FOR NO KEY UPDATE`: what refers to the server is not held up."""


async def _lock_server(session: AsyncSession, server_id: UUID) -> None:
    """Its next version: lists that were resolved under the old pins are nobody's any more."""
    row = await session.get(tables.McpServerConfig, server_id, with_for_update=_NO_KEY)
    if row is None:
        raise NotFound
    row.version += 1


async def _pins(session: AsyncSession, server_id: UUID, listed: Mapping[str, str]) -> Pins:
    pin = tables.ToolPin
    query = select(
        pin.tool_name, pin.definition_hash, pin.changed_hash, col(pin.seen_hashes)
    ).where(pin.server_id == server_id)
    rows = {row[0]: row for row in await session.exec(query)}
    moved = [
        name
        for name, (_, pinned, _, _) in rows.items()
        if pinned and listed.get(name, pinned) != pinned
    ]
    definitions = await _definitions(session, server_id, moved) if moved else {}
    return {
        name: Pin(
            pinned,
            spec_of(definitions[name]) if name in definitions else None,
            pending or "",
            frozenset(seen),
        )
        for name, (_, pinned, pending, seen) in rows.items()
    }


async def _definitions(
    session: AsyncSession, server_id: UUID, names: Sequence[str]
) -> dict[str, JsonObject]:
    pin = tables.ToolPin
    query = select(pin.tool_name, cast("Mapped[JsonObject]", pin.definition)).where(
        pin.server_id == server_id, col(pin.tool_name).in_(names)
    )
    return dict((await session.exec(query)).all())


async def _locked(
    session: AsyncSession, server_id: UUID, names: Iterable[str]
) -> dict[str, tables.ToolPin]:
    """Under the server's lock, which is theirs too."""
    pin = tables.ToolPin
    query = select(pin).where(pin.server_id == server_id, col(pin.tool_name).in_(list(names)))
    return {row.tool_name: row for row in await session.exec(query)}


def _write(
    session: AsyncSession, server_id: UUID, row: tables.ToolPin | None, change: Change
) -> None:
    definition = definition_of(change.spec)
    if row is None:
        row = tables.ToolPin(
            server_id=server_id, tool_name=change.spec.name, definition={}, definition_hash=""
        )
        session.add(row)
    if change.kind in ("follow", "flag"):
        _audit(session, row, change, definition)
    match change.kind:
        case "pin" | "follow":
            _pin(row, definition, change.hash, func.clock_timestamp())
            row.seen_hashes = list(dict.fromkeys([*row.seen_hashes, change.hash]))[-MAX_SEEN:]
            row.pinned_by = None
        case "flag":
            row.changed, row.changed_hash = definition, change.hash
            row.changed_at = cast(Any, func.clock_timestamp())
        case "settle":
            row.changed = row.changed_hash = row.changed_at = None


def _pin(row: tables.ToolPin, definition: JsonObject, definition_hash: str, now: Any) -> None:
    row.definition, row.definition_hash = definition, definition_hash
    row.changed = row.changed_hash = row.changed_at = None
    row.pinned_at = now


def _accept(row: tables.ToolPin, by: UUID, now: datetime) -> PinMove:
    """`now` is a value: rows with an expression in them are not written together."""
    changed, changed_hash = row.changed, row.changed_hash
    assert changed is not None
    assert changed_hash is not None
    moved = PinMove(
        row.tool_name, row.definition_hash, changed_hash, changed_fields(row.definition, changed)
    )
    _pin(row, changed, changed_hash, now)
    row.seen_hashes = [changed_hash]
    row.pinned_by = by
    return moved


def _audit(
    session: AsyncSession, row: tables.ToolPin, change: Change, definition: JsonObject
) -> None:
    """Nobody's doing but the server's: the entry has no actor."""
    before = {"definition_hash": row.definition_hash}
    after = {
        "tool": row.tool_name,
        "definition_hash": change.hash,
        "fields": changed_fields(row.definition, definition),
        "pinned": change.kind == "follow",
    }
    target = ("mcp_server", str(row.server_id))
    add_entry(session, Entry(None, "", "tool_changed", *target, before, after))


def _view(row: tables.ToolPin) -> View:
    return {
        "name": row.tool_name,
        "definition": row.definition or None,
        "definition_hash": row.definition_hash,
        "pinned_at": rfc3339(row.pinned_at),
        "pinned_by": str(row.pinned_by) if row.pinned_by else None,
        "changed": row.changed_hash is not None,
        "changed_hash": row.changed_hash,
        "changed_at": rfc3339(row.changed_at),
    }
