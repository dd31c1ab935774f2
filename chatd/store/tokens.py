"""API tokens: shown once, kept as SHA-256, checked by one statement a request."""

import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, func, or_, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.core.chats import Actor
from chatd.core.errors import Conflict, NotFound
from chatd.core.times import rfc3339
from chatd.store import tables
from chatd.store.db import Database
from chatd.store.users import lock_user

PREFIX = "chatd_"
_RANDOM_BYTES = 32

MAX_LIVE = 100
"""Tokens of one user that work."""

SHOWN = 200

COUNT_LIVE = text(
    """SELECT count(*) FROM api_tokens WHERE user_id = :user AND revoked_at IS NULL
        AND (expires_at IS NULL OR expires_at > clock_timestamp())"""
)

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
SELECT t.id FROM api_tokens t JOIN users u ON u.id = t.user_id
WHERE t.id = ANY ($1::uuid[]) AND t.revoked_at IS NULL AND NOT u.suspended
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

    def view(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "id": str(self.id),
            "name": self.name,
            "created_at": rfc3339(self.created_at),
            "expires_at": rfc3339(self.expires_at),
            "revoked_at": rfc3339(self.revoked_at),
            "last_used_at": rfc3339(self.last_used_at),
        }


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


async def add_token(
    session: AsyncSession, user_id: UUID, token: str, *, name: str, days: int | None
) -> Token:
    """The same for a user who has no more than they may; it expires by the database's clock.

    Raises `NotFound`, `Conflict`.
    """
    await lock_user(session, user_id)  # else two requests at once would count alike
    connection = await session.connection()
    live = (await connection.execute(COUNT_LIVE, {"user": user_id})).scalar_one()
    if live >= MAX_LIVE:
        raise Conflict(f"A user has at most {MAX_LIVE} tokens.", detail="Delete one of them first.")
    expires_at = None
    if days is not None:
        now: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
        expires_at = now + timedelta(days=days)
    return await create_token(session, user_id, token, name=name, expires_at=expires_at)


async def list_tokens(session: AsyncSession, user_id: UUID) -> list[Token]:
    """A user's tokens, the newest first; of those that no longer work the youngest."""
    table = tables.ApiToken
    dead = or_(
        col(table.revoked_at).is_not(None),
        func.coalesce(col(table.expires_at) <= func.clock_timestamp(), False),
    )
    query = select(table).where(table.user_id == user_id)
    found = await session.exec(query.order_by(dead, col(table.created_at).desc()).limit(SHOWN))
    tokens = [_token(row) for row in found]
    return sorted(tokens, key=lambda token: token.created_at, reverse=True)


async def revoke_token(
    session: AsyncSession, token_id: UUID, user_id: UUID | None = None
) -> UUID | None:
    """The token stops working with this commit. Answers whose it was; None when it did before.

    Raises `NotFound`, also for one that is not this user's.
    """
    table = tables.ApiToken
    query = select(table).where(table.id == token_id).with_for_update(key_share=True)
    row = (await session.exec(query)).one_or_none()
    if row is None or (user_id is not None and row.user_id != user_id):
        raise NotFound("There is no such token.")
    if row.revoked_at is not None:
        return None
    revoked = update(table).where(col(table.id) == token_id)
    await session.exec(revoked.values(revoked_at=func.clock_timestamp()))
    return row.user_id


async def authenticate(db: Database, token_sha256: bytes) -> Actor | None:
    """Who holds this token, unless it or its user no longer counts.

    Notes the use at most once a minute. Raises `Unavailable`.
    """
    row = await db.fetch_one(AUTHENTICATE, token_sha256)
    if row is None:
        return None
    return Actor(user_id=row["user_id"], role=row["role"], token_id=row["id"])


async def tokens_alive(db: Database, token_ids: Collection[UUID]) -> frozenset[UUID]:
    """Those of the tokens that would still let their holders in. Raises `Unavailable`."""
    return frozenset(row["id"] for row in await db.fetch(ALIVE, list(token_ids)))


def _token(row: tables.ApiToken) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        created_at=cast(datetime, row.created_at),
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )
