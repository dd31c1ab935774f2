"""API tokens: shown once, kept as SHA-256, checked by one statement a request."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import cast
from uuid import UUID

from sqlmodel import col, func, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.core.chats import Actor
from chatd.core.errors import NotFound
from chatd.store import tables
from chatd.store.db import Database

PREFIX = "chatd_"
_RANDOM_BYTES = 32

AUTHENTICATE = """
WITH found AS (
    SELECT t.id, t.user_id, u.role,
        t.last_used_at IS NULL OR t.last_used_at < clock_timestamp() - interval '1 minute' AS due
    FROM api_tokens t JOIN users u ON u.id = t.user_id
    WHERE t.token_sha256 = $1 AND t.revoked_at IS NULL AND NOT u.suspended
        AND (t.expires_at IS NULL OR t.expires_at > clock_timestamp())
), used AS (
    UPDATE api_tokens SET last_used_at = clock_timestamp()
    WHERE id = (SELECT id FROM found WHERE due)
)
SELECT id, user_id, role FROM found
"""

ALIVE = """
SELECT 1 FROM api_tokens t JOIN users u ON u.id = t.user_id
WHERE t.id = $1 AND t.revoked_at IS NULL AND NOT u.suspended
    AND (t.expires_at IS NULL OR t.expires_at > clock_timestamp())
"""


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; nobody knows its text."""

    id: UUID
    name: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


def new_token() -> str:
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def sha256(token: str) -> bytes:
    """What is stored and looked up: the tokens are random, so a plain hash hides them."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


async def create_token(
    session: AsyncSession,
    user_id: UUID,
    token: str,
    *,
    name: str = "",
    expires_at: datetime | None = None,
) -> Token:
    """Keep the hash of a token made by `new_token`."""
    row = tables.ApiToken(
        user_id=user_id, name=name, token_sha256=sha256(token), expires_at=expires_at
    )
    session.add(row)
    await session.flush()
    await session.refresh(row)
    return _token(row)


async def list_tokens(session: AsyncSession, user_id: UUID) -> list[Token]:
    """A user's tokens, the newest first, also those that no longer work."""
    table = tables.ApiToken
    query = select(table).where(table.user_id == user_id).order_by(col(table.created_at).desc())
    return [_token(row) for row in await session.exec(query)]


async def revoke_token(session: AsyncSession, token_id: UUID) -> None:
    """The token stops working with this commit; again is harmless. Raises `NotFound`."""
    table = tables.ApiToken
    query = (
        update(table)
        .where(col(table.id) == token_id)
        .values(revoked_at=func.coalesce(table.revoked_at, func.clock_timestamp()))
        .returning(col(table.id))
    )
    if (await session.exec(query)).one_or_none() is None:
        raise NotFound("There is no such token.")


async def authenticate(db: Database, token_sha256: bytes) -> Actor | None:
    """Who holds this token, unless it or its user no longer counts.

    Notes the use at most once a minute. Raises `Unavailable`.
    """
    row = await db.fetch_one(AUTHENTICATE, token_sha256)
    if row is None:
        return None
    return Actor(user_id=row["user_id"], role=row["role"], token_id=row["id"])


async def token_alive(db: Database, token_id: UUID) -> bool:
    """Whether the token would still let its holder in. Raises `Unavailable`."""
    return await db.fetch_one(ALIVE, token_id) is not None


def _token(row: tables.ApiToken) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        created_at=cast(datetime, row.created_at),
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )
