"""The audit log's rows."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.store import tables

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One administrative change, without secrets."""

    actor_id: UUID | None
    request_id: str
    action: str
    target_type: str
    target_id: str
    before: Fields | None
    after: Fields | None


def add_entry(session: AsyncSession, entry: Entry) -> None:
    """Written with the transaction that makes the change, or not at all."""
    session.add(
        tables.AuditEntry(
            actor_id=entry.actor_id,
            request_id=entry.request_id,
            action=entry.action,
            target_type=entry.target_type,
            target_id=entry.target_id,
            before=entry.before,
            after=entry.after,
        )
    )
