"""Who changed what: one entry per administrative change, in the change's own transaction."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.core.redaction import REDACTED
from chatd.store.audit import Entry, Fields, add_entry

_UNTOLD = {"updated_at", "updated_by", "version"}
"""Every change moves these; they say nothing."""


@dataclass(frozen=True, slots=True)
class By:
    """Who did it and in which request; without an id it was an operator at the command line."""

    actor_id: UUID | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    kind: str
    id: UUID | str


def record(
    session: AsyncSession,
    by: By,
    action: str,
    target: Target,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    secrets: Collection[str] = (),
) -> None:
    """Note a change by what its object looked like before and after.

    Of a change only the fields that differ are kept. `secrets` names the secret fields that were
    set; their values never come here.
    """
    old, new = _differences(before, after)
    if new is not None:
        new |= dict.fromkeys(secrets, REDACTED)
    entry = Entry(by.actor_id, by.request_id, action, target.kind, str(target.id), old, new)
    add_entry(session, entry)


def _differences(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> tuple[Fields | None, Fields | None]:
    if before is None or after is None:
        return _told(before), _told(after)
    moved = {name for name in after if before.get(name) != after[name]} - _UNTOLD
    return {name: before.get(name) for name in moved}, {name: after[name] for name in moved}


def _told(fields: Mapping[str, Any] | None) -> Fields | None:
    if fields is None:
        return None
    return {name: value for name, value in fields.items() if name not in _UNTOLD}
