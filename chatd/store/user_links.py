"""Who a user is at an OpenID provider: by issuer and subject, never by name or address."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.core.errors import Conflict, NotFound
from chatd.core.tools import JsonObject
from chatd.store import policy_state
from chatd.store.db import Database, dump, load
from chatd.store.ids import new_id
from chatd.store.users import Role

_COLUMNS = """l.id, l.user_id, l.issuer, l.subject, l.email, l.claims, l.created_at,
    l.last_login_at, u.username, u.role, u.suspended"""

FIND = f"""
SELECT {_COLUMNS} FROM user_links l JOIN users u ON u.id = l.user_id
WHERE l.issuer = $1 AND l.subject = $2
"""

OF_USER = f"""
SELECT {_COLUMNS} FROM user_links l JOIN users u ON u.id = l.user_id
WHERE l.user_id = $1 ORDER BY l.created_at, l.id
"""

ADD = text(
    """INSERT INTO user_links (id, user_id, issuer, subject, email, claims)
    VALUES (:id, :user, :issuer, :subject, :email, CAST(:claims AS jsonb))
    ON CONFLICT (issuer, subject) DO NOTHING RETURNING id"""
)

NOTE = text(
    """UPDATE user_links SET email = :email, claims = CAST(:claims AS jsonb),
        last_login_at = clock_timestamp() WHERE id = :id RETURNING id"""
)

REMOVE = text("DELETE FROM user_links WHERE id = :id AND user_id = :user RETURNING issuer")

FORGET_LOGIN = text(
    """DELETE FROM oauth_tokens t WHERE t.user_id = :user AND (
        t.server_id IS NULL AND t.issuer = :issuer
        OR EXISTS (SELECT 1 FROM mcp_server_configs s
            WHERE s.id = t.server_id AND s.auth_type = 'user_oidc'))"""
)
"""The login's token, and what it was exchanged for."""


@dataclass(frozen=True, slots=True)
class UserLink:
    id: UUID
    user_id: UUID
    issuer: str
    subject: str
    email: str
    claims: JsonObject
    created_at: datetime
    last_login_at: datetime
    username: str
    role: Role
    suspended: bool


async def find_link(db: Database, issuer: str, subject: str) -> UserLink | None:
    """Whose login this is, also of a suspended user."""
    row = await db.fetch_one(FIND, issuer, subject)
    return _link(row) if row is not None else None


async def links_of(db: Database, user_id: UUID) -> Sequence[UserLink]:
    return [_link(row) for row in await db.fetch(OF_USER, user_id)]


async def add_link(
    session: AsyncSession,
    user_id: UUID,
    *,
    issuer: str,
    subject: str,
    email: str = "",
    claims: Mapping[str, Any],
) -> UUID:
    """Raises `Conflict` when it is somebody's already, also this user's."""
    values = {
        "id": new_id(),
        "user": user_id,
        "issuer": issuer,
        "subject": subject,
        "email": email,
        "claims": dump(dict(claims)),
    }
    connection = await session.connection()
    made = (await connection.execute(ADD, values)).scalar_one_or_none()
    if made is None:
        raise Conflict("This login belongs to a user already.")
    return made


async def note_login(
    session: AsyncSession, link_id: UUID, *, email: str, claims: Mapping[str, Any]
) -> None:
    """What the provider says of them now. Raises `NotFound` when it was taken from them."""
    values = {"id": link_id, "email": email, "claims": dump(dict(claims))}
    connection = await session.connection()
    if (await connection.execute(NOTE, values)).first() is None:
        raise NotFound


async def remove_link(session: AsyncSession, link_id: UUID, user_id: UUID) -> bool:
    """With the token of that login. False when there is no such link."""
    await policy_state.bump(session)
    connection = await session.connection()
    values = {"id": link_id, "user": user_id}
    issuer = (await connection.execute(REMOVE, values)).scalar_one_or_none()
    if issuer is None:
        return False
    await connection.execute(FORGET_LOGIN, {"user": user_id, "issuer": issuer})
    return True


def _link(row: Any) -> UserLink:
    return UserLink(**{**row, "claims": load(row["claims"])})
