"""The audit log's rows."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.store import tables

Fields = dict[str, Any]

_UNSEAL = text("SELECT set_config('chatd.retention', 'on', true)")

_NOTE_APPROVAL = text(
    """INSERT INTO audit_log (actor_id, action, target_type, target_id, request_id, chat_id,
        server_id, tool, after)
    SELECT CAST(:by AS uuid), CAST(:decision AS text), 'approval', CAST(i.id AS text), '',
        i.chat_id, CAST(i.data->>'server_id' AS uuid),
        coalesce(nullif(i.data->>'original_name', ''), i.data->>'tool_name', ''),
        jsonb_build_object('turn_id', i.turn_id, 'state', i.state,
            'decision', CAST(:decision AS text))
    FROM open_items i WHERE i.id = :item"""
)


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


async def note_approval(
    connection: AsyncConnection, by: UUID | None, item_id: UUID, decision: str
) -> None:
    """One line for a closed item; `by` nobody: policy or its deadline has denied the call.

    Nobody but the chat's owner may read the arguments, or why.
    """
    told = {"by": by, "item": item_id, "decision": decision}
    await connection.execute(_NOTE_APPROVAL, told)


async def unseal(connection: AsyncConnection) -> None:
    """Until the end of this transaction lines may be changed and removed; those of the connection
    log only removed.

    For their retention and for erasing a person, nothing else: both logs are append-only.
    """
    await connection.execute(_UNSEAL)
