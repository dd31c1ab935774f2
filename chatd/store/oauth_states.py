"""Flows under way: a secret that works once, within minutes, and in one browser."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast
from uuid import UUID

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.core.errors import NotFound
from chatd.core.tools import JsonObject
from chatd.store.db import Database, dump, load
from chatd.store.ids import new_id
from chatd.store.secrets import KeyRing

StateKind = Literal["ticket", "state", "login"]
"""A ticket opens the consent page; a state comes back with the code; a login has no user yet."""

TABLE = "oauth_states"
BATCH = 1000
_RANDOM_BYTES = 32

_COLUMNS = "id, user_id, server_id, data, data_key_id, created_at, expires_at"

CREATE = """
WITH before AS (SELECT id FROM oauth_states WHERE id = $10 FOR KEY SHARE)
INSERT INTO oauth_states (id, kind, secret_sha256, cookie_sha256, user_id, server_id, data,
    data_key_id, expires_at)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, clock_timestamp() + make_interval(secs => $9)
WHERE $10::uuid IS NULL OR EXISTS (SELECT 1 FROM before)
RETURNING expires_at
"""

_GOOD = """secret_sha256 = $1 AND kind = $2 AND used_at IS NULL AND expires_at > clock_timestamp()
    AND cookie_sha256 IS NOT DISTINCT FROM $3"""

READ = f"SELECT {_COLUMNS} FROM oauth_states WHERE {_GOOD}"

USE = f"UPDATE oauth_states SET used_at = clock_timestamp() WHERE {_GOOD} RETURNING {_COLUMNS}"
"""Of those at the same moment one has it: the others find it used."""

BIND = """
UPDATE oauth_states SET cookie_sha256 = $3
WHERE secret_sha256 = $1 AND kind = $2 AND used_at IS NULL AND expires_at > clock_timestamp()
    AND coalesce(cookie_sha256 = $3, true)
RETURNING id
"""

END = """
DELETE FROM oauth_states
WHERE ($1::uuid IS NULL OR server_id = $1) AND ($2::uuid IS NULL OR user_id = $2)
RETURNING id
"""
"""Those that were used as well: one whose code is being redeemed just now must not connect."""

HOLD = text("SELECT 1 FROM oauth_states WHERE id = :id FOR KEY SHARE")

FORGET = f"""
DELETE FROM oauth_states WHERE id IN (
    SELECT id FROM oauth_states WHERE expires_at < clock_timestamp() - interval '1 hour'
    ORDER BY expires_at LIMIT {BATCH} FOR UPDATE SKIP LOCKED)
RETURNING id
"""


@dataclass(frozen=True, slots=True)
class NewState:
    secret: str
    """Nobody knows it but who gets it: only its hash is kept."""
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class State:
    id: UUID
    user_id: UUID | None
    server_id: UUID | None
    data: JsonObject
    created_at: datetime
    expires_at: datetime


def new_secret() -> str:
    return secrets.token_urlsafe(_RANDOM_BYTES)


async def create_state(
    db: Database,
    keys: KeyRing,
    *,
    kind: StateKind,
    data: JsonObject,
    seconds: float,
    user_id: UUID | None = None,
    server_id: UUID | None = None,
    cookie: str | None = None,
    after: UUID | None = None,
) -> NewState:
    """`cookie`: of the browser it belongs to; None for one that is bound later, or is not. `after`:
    the one that it goes on from. Raises `NotFound` where `end_states` has ended that meanwhile."""
    state_id, secret = new_id(), new_secret()
    ciphertext, key_id = keys.encrypt(dump(data), table=TABLE, column="data", row_id=state_id)
    row = await db.fetch_one(
        CREATE,
        state_id,
        kind,
        _sha256(secret),
        _sha256(cookie) if cookie is not None else None,
        user_id,
        server_id,
        ciphertext,
        key_id,
        seconds,
        after,
    )
    if row is None:
        raise NotFound("This was ended meanwhile. Start again from where you got the link.")
    return NewState(secret, row["expires_at"])


async def bind_state(db: Database, secret: str, *, kind: StateKind, cookie: str) -> bool:
    """It belongs to this browser from now on. False: to another one, or it is over."""
    return await db.fetch_one(BIND, _sha256(secret), kind, _sha256(cookie)) is not None


async def read_state(
    db: Database, keys: KeyRing, secret: str, *, kind: StateKind, cookie: str | None
) -> State | None:
    """As `use_state`, which still works afterwards."""
    return _state(await db.fetch(READ, *_asked(secret, kind, cookie)), keys)


async def use_state(
    db: Database, keys: KeyRing, secret: str, *, kind: StateKind, cookie: str | None
) -> State | None:
    """Once. None: there is none, it is over, it was used, or it is another browser's, for which it
    goes on working. Raises `Tampered` or `UnknownKey`."""
    return _state(await db.fetch(USE, *_asked(secret, kind, cookie)), keys)


async def end_states(
    db: Database, *, server_id: UUID | None = None, user_id: UUID | None = None
) -> int:
    """No flow of this server or user, or of both, comes to its end any more.

    Where it waits for `hold_state` what that held has been saved when this returns.
    """
    if server_id is None and user_id is None:
        raise ValueError("whose flows?")
    ended = 0
    # Again, since one that went on from another meanwhile was made after the statement began.
    while gone := len(await db.fetch(END, server_id, user_id)):
        ended += gone
    return ended


async def hold_state(session: AsyncSession, state_id: UUID) -> bool:
    """Nobody ends this flow before the transaction does. False: it was ended, used as it is."""
    connection = await session.connection()
    return (await connection.execute(HOLD, {"id": state_id})).first() is not None


async def forget_states(db: Database) -> int:
    """Remove a batch of those that are over."""
    return len(await db.fetch(FORGET))


def _asked(secret: str, kind: str, cookie: str | None) -> tuple[object, ...]:
    return _sha256(secret), kind, _sha256(cookie) if cookie is not None else None


def _sha256(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _state(rows: Sequence[Any], keys: KeyRing) -> State | None:
    if not rows:
        return None
    (row,) = rows
    plain = keys.decrypt(
        row["data"], row["data_key_id"], table=TABLE, column="data", row_id=row["id"]
    )
    return State(
        id=row["id"],
        user_id=row["user_id"],
        server_id=row["server_id"],
        data=cast(JsonObject, load(plain.get_secret_value())),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
    )
