"""Pinned chats: numbered from 1 without gaps, per owner."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from chatd.core.chats import Actor, pinned_at
from chatd.store.family import Changed, run

LOCK_PINS = text(
    "SELECT pg_advisory_xact_lock(hashtextextended('pins', 0) # CAST(:owner AS bigint))"
)

PINNED = text(
    """SELECT id FROM chats WHERE owner_id = :owner AND pin_order > 0 AND NOT archived
        AND deleted_at IS NULL AND id <> :chat
    ORDER BY pin_order, id FOR NO KEY UPDATE"""
)

NUMBER = text(
    """UPDATE chats c SET pin_order = asked.place,
        version = c.version + CASE WHEN c.id = :chat THEN 0 ELSE 1 END
    FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS asked(id, place)
    WHERE c.id = asked.id AND c.pin_order <> asked.place
    RETURNING c.id, c.version"""
)

UNPIN = text("UPDATE chats SET pin_order = 0 WHERE id = :chat")


async def lock_pins(connection: AsyncConnection, actor: Actor) -> None:
    """Before any chat is locked by a command that may move pins: they are chats of many families,
    and two such commands would otherwise wait for each other's."""
    await connection.execute(LOCK_PINS, {"owner": actor.user_id.int & (2**63 - 1)})


async def pin(
    connection: AsyncConnection, actor: Actor, chat: Any, wanted: int, changed: Changed
) -> None:
    """Put a locked chat, whose version is already the new one, at this place; 0 takes it out."""
    others: Sequence[UUID] = [
        row.id for row in await run(connection, PINNED, owner=actor.user_id, chat=chat.id)
    ]
    if wanted == 0:
        await connection.execute(UNPIN, {"chat": chat.id})
    ids = pinned_at(others, chat.id, now=chat.pin_order, wanted=wanted)
    for row in await run(connection, NUMBER, ids=ids, chat=chat.id):
        changed.versions[row.id] = row.version
