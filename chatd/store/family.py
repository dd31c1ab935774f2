"""Locking chats in the one order: the family's root, then the chat, then those below it by id.

Whoever locks one chat alone needs no root; whoever locks several of a family locks its root first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from chatd.core.chats import Actor
from chatd.core.errors import NotFound

FIND_ROOT = text(
    """SELECT coalesce(root_chat_id, id) AS root FROM chats
    WHERE id = :chat AND owner_id = :owner AND deleted_at IS NULL"""
)

LOCK_ROOT = text("SELECT id FROM chats WHERE id = :chat FOR NO KEY UPDATE")

LOCK_CHAT = text(
    """SELECT id, version, archived, pin_order, parent_chat_id, mode, context_from_message_id
    FROM chats WHERE id = :chat AND owner_id = :owner AND deleted_at IS NULL FOR NO KEY UPDATE"""
)

LOCK_BELOW = text(
    """SELECT id, version, archived FROM chats WHERE deleted_at IS NULL AND id IN (
        WITH RECURSIVE below AS (
            SELECT id FROM chats WHERE parent_chat_id = :chat
            UNION SELECT c.id FROM chats c JOIN below ON c.parent_chat_id = below.id
        ) SELECT id FROM below)
    ORDER BY id FOR NO KEY UPDATE"""
)


@dataclass(slots=True)
class Changed:
    """What a command changed, for those who are told after its commit."""

    versions: dict[UUID, int] = field(default_factory=dict[UUID, int])
    """The new version of every chat that changed."""
    stops: list[UUID] = field(default_factory=list[UUID])
    """Turns that a worker has in hand and must let go."""


async def lock_chat(connection: AsyncConnection, actor: Actor, chat_id: UUID) -> Any:
    """The chat, locked alone. Raises `NotFound`, also for somebody else's."""
    found = await run(connection, LOCK_CHAT, chat=chat_id, owner=actor.user_id)
    if not found:
        raise NotFound
    return found[0]


async def lock_in_family(connection: AsyncConnection, actor: Actor, chat_id: UUID) -> Any:
    """The same for whoever locks other chats of the family afterwards."""
    found = await run(connection, FIND_ROOT, chat=chat_id, owner=actor.user_id)
    if found and found[0].root != chat_id:
        await connection.execute(LOCK_ROOT, {"chat": found[0].root})
    return await lock_chat(connection, actor, chat_id)


async def lock_below(connection: AsyncConnection, chat_id: UUID) -> Sequence[Any]:
    """The chat's children and theirs, whose root is locked already."""
    return await run(connection, LOCK_BELOW, chat=chat_id)


async def run(connection: AsyncConnection, statement: TextClause, **params: object) -> Any:
    """The statement's rows."""
    return (await connection.execute(statement, params)).all()
