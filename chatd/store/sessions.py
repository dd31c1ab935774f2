"""Browsers that are signed in: a token in a cookie, of which only the hash is kept.

The token is changed now and then. An answer with the new one may be lost, so the one before works
until the new one has come back, and for a minute more: other requests were on their way. A token
that comes later than that is in two hands (RFC 9700, section 4.14.2): nobody can tell which of
them is the user's, so the session ends. A request that was slow to come in shows the one before
for some minutes more: it is refused, and nothing ends. All tokens of a session begin alike, by
which it is found.
"""

import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from hmac import compare_digest
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.core.chats import Actor
from chatd.store.db import Database
from chatd.store.ids import new_id
from chatd.store.secrets import KeyRing
from chatd.store.users import END_SESSIONS

TABLE = "sessions"
PREFIX = "chatds_"
_RANDOM_BYTES = 32
_FAMILY_BYTES = 18
_FAMILY_LENGTH = len(PREFIX) + 24
"""Of what all tokens of a session begin with: `PREFIX`, and those bytes as base64."""

ROTATE_AFTER = "interval '15 minutes'"
GRACE_S = 60
GRACE = f"interval '{GRACE_S} seconds'"
SLOW = "interval '10 minutes'"
"""For which a request may have been on its way, its body above all: it was made with the token that
was good then."""
BATCH = 200

CREATE = text(
    """INSERT INTO sessions (id, user_id, family_sha256, token_sha256, csrf_sha256, seen_at,
        last_used_at, expires_at)
    VALUES (:id, :user, :family, :token, :csrf, clock_timestamp(), clock_timestamp(),
        clock_timestamp() + make_interval(secs => CAST(:seconds AS float8)))
    RETURNING expires_at"""
)

_GOOD = "s.revoked_at IS NULL AND s.expires_at > clock_timestamp() AND NOT u.suspended"

AUTHENTICATE = f"""
WITH found AS (
    SELECT s.id, s.user_id, u.role, s.csrf_sha256, s.expires_at, s.seen_at,
        s.token_sha256 = $1 AS newest, CASE WHEN s.token_sha256 = $1
            THEN s.rotated_at < clock_timestamp() - {ROTATE_AFTER}
            ELSE s.seen_at IS NULL AND s.rotated_at < clock_timestamp() - {GRACE} END AS due,
        s.last_used_at < clock_timestamp() - interval '1 minute' AS unnoted
    FROM sessions s JOIN users u ON u.id = s.user_id
    WHERE {_GOOD} AND (s.token_sha256 = $1 OR s.previous_sha256 = $1
        AND coalesce(s.seen_at > clock_timestamp() - {GRACE}, true))
), used AS (
    UPDATE sessions s SET last_used_at = clock_timestamp(),
        seen_at = CASE WHEN found.newest THEN coalesce(s.seen_at, clock_timestamp())
            ELSE s.seen_at END
    FROM found WHERE s.id = found.id AND (found.unnoted OR found.newest AND found.seen_at IS NULL)
)
SELECT id, user_id, role, csrf_sha256, expires_at, due FROM found
"""
"""Due: time for another token, or the last one was lost on its way."""

ROTATE = f"""
UPDATE sessions SET token_sha256 = $3, previous_sha256 = $2, rotated_at = clock_timestamp(),
    seen_at = NULL
WHERE id = $1 AND revoked_at IS NULL AND (
    token_sha256 = $2 AND rotated_at < clock_timestamp() - {ROTATE_AFTER}
    OR previous_sha256 = $2 AND seen_at IS NULL AND rotated_at < clock_timestamp() - {GRACE})
RETURNING id
"""

REPLACED = f"""
SELECT id, user_id FROM sessions
WHERE family_sha256 = $1 AND token_sha256 <> $2 AND revoked_at IS NULL
    AND expires_at > clock_timestamp() AND ($3 OR previous_sha256 IS DISTINCT FROM $2
        OR rotated_at < clock_timestamp() - {SLOW})
"""
"""Asked only of a token that lets nobody in, so it is not the one before within its minute."""

KEEP_HINT = text("UPDATE sessions SET id_token = :id_token, id_token_key_id = :key WHERE id = :id")

READ_HINT = "SELECT id_token, id_token_key_id FROM sessions WHERE id = $1"

ALIVE = f"""
SELECT s.id FROM sessions s JOIN users u ON u.id = s.user_id
WHERE s.id = ANY ($1::uuid[]) AND {_GOOD}
"""

END = text(
    """UPDATE sessions SET revoked_at = clock_timestamp()
    WHERE id = :id AND revoked_at IS NULL RETURNING id"""
)

FORGET = f"""
DELETE FROM sessions WHERE id IN (
    SELECT id FROM sessions
    WHERE least(revoked_at, expires_at) < clock_timestamp() - interval '1 day'
    LIMIT {BATCH} FOR UPDATE SKIP LOCKED)
RETURNING id
"""


@dataclass(frozen=True, slots=True)
class NewSession:
    """What the browser gets, and nobody else knows."""

    id: UUID
    token: str = field(repr=False)
    csrf: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session whose token was just shown."""

    session_id: UUID
    actor: Actor
    expires_at: datetime
    due: bool
    """Time to `rotate_session`."""
    csrf_sha256: bytes = field(repr=False)

    def sent_by_us(self, csrf: str) -> bool:
        """Whether a form or a script of our own sent the request."""
        return compare_digest(_sha256(csrf), self.csrf_sha256)


@dataclass(frozen=True, slots=True)
class Reused:
    """A session one of whose former tokens was shown."""

    session_id: UUID
    user_id: UUID


async def create_session(session: AsyncSession, user_id: UUID, *, seconds: float) -> NewSession:
    family = PREFIX + secrets.token_urlsafe(_FAMILY_BYTES)
    made, token, csrf = new_id(), _next(family), secrets.token_urlsafe(_RANDOM_BYTES)
    values = {
        "id": made,
        "user": user_id,
        "family": _sha256(family),
        "token": _sha256(token),
        "csrf": _sha256(csrf),
        "seconds": seconds,
    }
    connection = await session.connection()
    expires_at = (await connection.execute(CREATE, values)).scalar_one()
    return NewSession(made, token, csrf, expires_at)


async def keep_id_token(
    session: AsyncSession, keys: KeyRing, session_id: UUID, id_token: SecretStr
) -> None:
    """What the provider may be shown when the browser signs out there too."""
    sealed, key_id = keys.encrypt(
        id_token.get_secret_value(), table=TABLE, column="id_token", row_id=session_id
    )
    values = {"id": session_id, "id_token": sealed, "key": key_id}
    await (await session.connection()).execute(KEEP_HINT, values)


async def read_id_token(db: Database, keys: KeyRing, session_id: UUID) -> SecretStr | None:
    """Raises `Tampered`, `UnknownKey`."""
    row = await db.fetch_one(READ_HINT, session_id)
    if row is None or row["id_token"] is None:
        return None
    return keys.decrypt(
        row["id_token"], row["id_token_key_id"], table=TABLE, column="id_token", row_id=session_id
    )


async def authenticate_session(db: Database, token: str) -> SignedIn | None:
    """Who is signed in. Notes the use at most once a minute. Raises `Unavailable`."""
    row = await db.fetch_one(AUTHENTICATE, _sha256(token))
    if row is None:
        return None
    return SignedIn(
        session_id=row["id"],
        actor=Actor(user_id=row["user_id"], role=row["role"]),
        expires_at=row["expires_at"],
        due=row["due"],
        csrf_sha256=row["csrf_sha256"],
    )


async def rotate_session(db: Database, session_id: UUID, token: str) -> str | None:
    """Another token in place of this one. None: another request has done it just now."""
    new = _next(_family(token))
    row = await db.fetch_one(ROTATE, session_id, _sha256(token), _sha256(new))
    return new if row is not None else None


async def find_reused(db: Database, token: str, *, slow_too: bool = False) -> Reused | None:
    """The session that still goes on while this token, which lets nobody in any more, was one of
    its; `slow_too`: even one that a slow request may show. Raises `Unavailable`."""
    row = await db.fetch_one(REPLACED, _sha256(_family(token)), _sha256(token), slow_too)
    return Reused(row["id"], row["user_id"]) if row is not None else None


async def sessions_alive(db: Database, session_ids: Collection[UUID]) -> frozenset[UUID]:
    """Those of the sessions that still let their users in. Raises `Unavailable`."""
    return frozenset(row["id"] for row in await db.fetch(ALIVE, list(session_ids)))


async def end_session(session: AsyncSession, session_id: UUID) -> bool:
    """With this transaction's commit. False when it was over already."""
    ended = await (await session.connection()).execute(END, {"id": session_id})
    return ended.first() is not None


async def end_sessions_of(session: AsyncSession, user_id: UUID) -> None:
    """Sign out everywhere, with this transaction's commit."""
    await (await session.connection()).execute(END_SESSIONS, {"user": user_id})


async def forget_sessions(db: Database) -> int:
    """Remove a batch of those that are over."""
    return len(await db.fetch(FORGET))


def _family(token: str) -> str:
    return token[:_FAMILY_LENGTH]


def _next(family: str) -> str:
    return family + secrets.token_urlsafe(_RANDOM_BYTES)


def _sha256(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
