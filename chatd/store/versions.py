"""The chat's version: what orders everything that a client keeps."""

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_BUMP = text(
    """UPDATE chats SET version = version + 1, updated_at = clock_timestamp()
    WHERE id = :chat RETURNING version"""
)


async def bump(connection: AsyncConnection, chat_id: UUID) -> int:
    """The chat's next version: once per transaction that changes what a client keeps."""
    return (await connection.execute(_BUMP, {"chat": chat_id})).scalar_one()
