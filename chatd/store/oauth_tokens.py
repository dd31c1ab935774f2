"""Tokens at rest, and the lease under which one process at a time refreshes one of them.

Every time is kept by the database's clock, and every change of a token is a compare-and-set on its
generation: who has been overtaken changes nothing.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

from pydantic import SecretStr
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd import logs
from chatd.core.oauth import DOUBTFUL, Grant, ReauthReason, StoredToken
from chatd.store import oauth_sql, policy_state
from chatd.store.db import Database
from chatd.store.ids import new_id
from chatd.store.secrets import KeyRing, Tampered, UnknownKey

TABLE = "oauth_tokens"
MAX_LIFETIME_S = 10 * 365 * 86_400.0
LEASE_S = 15.0

log = logs.get("oauth_tokens")


class Unreadable(Tampered):
    """A token that is there, and whose ciphertext or key is not what it should be."""

    def __init__(self, error: Tampered | UnknownKey, row: Any) -> None:
        super().__init__(error.message)
        self.id: UUID = row["id"]
        self.server_id: UUID | None = row["server_id"]
        self.user_id: UUID | None = row["user_id"]
        self.generation: int = row["generation"]


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to refresh one generation of a token."""

    id: UUID
    left_behind: bool
    """A refresher was lost since the last refresh: the refresh token may be spent already."""


async def save_grant(
    session: AsyncSession,
    keys: KeyRing,
    *,
    server_id: UUID | None,
    user_id: UUID | None,
    issuer: str,
    client_id: str,
    token_url: str,
    resource: str,
    scopes: str,
    grant: Grant,
    connects: bool = True,
) -> UUID:
    """Keep a new grant under a new id, in place of the one before.

    `scopes`: as asked for. `connects`: it is a user's connection or login, on which policy looks;
    not one of the deployment's, nor one that was exchanged.
    """
    if connects:
        await policy_state.bump(session)
    token_id = new_id()
    values = {
        "id": token_id,
        "server_id": server_id,
        "user_id": user_id,
        "issuer": issuer,
        "client_id": client_id,
        "token_url": token_url,
        "resource": resource,
        "scopes": scopes if grant.scope is None else grant.scope,
        "token_type": grant.token_type,
        "lifetime": _lifetime(grant),
    }
    connection = await session.connection()
    await connection.execute(oauth_sql.SAVE_GRANT, values | _sealed(keys, token_id, grant))
    return token_id


async def read_token(db: Database, keys: KeyRing, token_id: UUID) -> StoredToken | None:
    """Raises `Unreadable`."""
    row = await db.fetch_one(oauth_sql.READ, token_id)
    return _token(row, keys) if row is not None else None


async def read_token_of(
    db: Database, keys: KeyRing, *, server_id: UUID | None, user_id: UUID | None
) -> StoredToken | None:
    """Raises as `read_token` does."""
    row = await db.fetch_one(oauth_sql.READ_OF[_given(server_id, user_id)], server_id, user_id)
    return _token(row, keys) if row is not None else None


async def tokens_of(db: Database, keys: KeyRing, user_id: UUID) -> list[StoredToken]:
    """All of a user's that can be read, also what their login's was exchanged for."""
    found: list[StoredToken] = []
    for row in await db.fetch(oauth_sql.TOKENS_OF, user_id):
        try:
            found.append(_token(row, keys))
        except Unreadable as error:
            log.warning("a token cannot be read", error=str(error))
    return found


async def take_lease(
    db: Database, token_id: UUID, *, generation: int, seconds: float = LEASE_S
) -> Lease | None:
    """None: somebody else has it, or the token is no longer of this generation, or is no use."""
    lease = uuid4()
    row = await db.fetch_one(oauth_sql.TAKE_LEASE, token_id, generation, lease, seconds)
    return Lease(lease, row["left_behind"]) if row is not None else None


async def save_refresh(
    db: Database, keys: KeyRing, token: StoredToken, lease: UUID, grant: Grant
) -> StoredToken | None:
    """The next generation. Without a refresh token the one before stays. None: overtaken."""
    sealed = _sealed(keys, token.id, grant)
    row = await db.fetch_one(
        oauth_sql.SAVE_REFRESH,
        token.id,
        token.generation,
        lease,
        *sealed.values(),
        grant.token_type,
        grant.scope,
        _lifetime(grant),
    )
    return _token(row, keys) if row is not None else None


async def release(
    db: Database, token_id: UUID, lease: UUID, *, error: str, pause_s: float = 0.0
) -> None:
    """Nothing came of it; `pause_s` keeps everybody from trying again for so long."""
    await db.fetch(oauth_sql.RELEASE, token_id, lease, error, pause_s)


async def mark_reauth(
    db: Database, token_id: UUID, *, generation: int, reason: ReauthReason, error: str = ""
) -> int:
    """Its user has to connect again; how often in a row it was marked, 1 where that is final.

    0 when it is of another generation by now, or marked. Nothing is deleted.
    """
    values = {"id": token_id, "generation": generation, "reason": reason, "error": error}
    values["doubtful"] = reason in DOUBTFUL
    async with db.transaction() as session:
        await policy_state.lock(session)
        connection = await session.connection()
        times = (await connection.execute(oauth_sql.MARK, values)).scalar_one_or_none()
        if times is not None:
            await policy_state.bump(session)
    return times or 0


async def try_again(db: Database, keys: KeyRing, token: StoredToken) -> StoredToken | None:
    """Not marked any more, until it is refused once more. None: overtaken, or it is too soon."""
    row = await db.fetch_one(oauth_sql.TRY_AGAIN, token.id, token.generation)
    return _token(row, keys) if row is not None else None


async def count_refusal(db: Database, token: StoredToken) -> int:
    """A refresh was refused without a word on whether that is for good: the how many-th in a row.

    0: not counted, as it comes too soon after the last one, or the token is another by now.
    """
    row = await db.fetch_one(oauth_sql.COUNT_REFUSAL, token.id, token.generation)
    return row["refusals"] if row is not None else 0


async def want_scopes(db: Database, token_id: UUID, scopes: str) -> bool:
    """Ask for these too, the next time. False: it has them all, or was asked often enough."""
    return await db.fetch_one(oauth_sql.WANT_SCOPES, token_id, scopes) is not None


async def touch(db: Database, token_id: UUID) -> None:
    """Note the use, at most once a minute."""
    await db.fetch(oauth_sql.TOUCH, token_id)


async def take_due(db: Database, *, days: float, limit: int) -> list[UUID]:
    """Tokens that nobody has refreshed for so long, and that can be; nobody else for an hour."""
    return [row["id"] for row in await db.fetch(oauth_sql.TAKE_DUE, days, limit)]


async def delete_token(
    session: AsyncSession, *, server_id: UUID | None, user_id: UUID | None
) -> bool:
    """Disconnect. False when there was nothing to."""
    await policy_state.bump(session)
    connection = await session.connection()
    statement = oauth_sql.DELETE[_given(server_id, user_id)]
    gone = await connection.execute(statement, {"server": server_id, "user": user_id})
    return bool(gone.all())


async def delete_tokens_of(session: AsyncSession, user_id: UUID) -> None:
    """All of a user's, the login's too."""
    await policy_state.bump(session)
    connection = await session.connection()
    await connection.execute(oauth_sql.DELETE_OF, {"user": user_id})


def _given(server_id: UUID | None, user_id: UUID | None) -> tuple[bool, bool]:
    return server_id is not None, user_id is not None


def _lifetime(grant: Grant) -> float | None:
    seconds = grant.expires_in_s
    if seconds is None or not math.isfinite(seconds):
        return None
    return max(0.0, min(seconds, MAX_LIFETIME_S))


def _sealed(keys: KeyRing, token_id: UUID, grant: Grant) -> dict[str, Any]:
    """In the order of `SAVE_REFRESH`'s arguments."""
    sealed: dict[str, Any] = {}
    for column in ("access_token", "refresh_token"):
        secret = cast(SecretStr | None, getattr(grant, column))
        ciphertext = key_id = None
        if secret is not None:
            ciphertext, key_id = keys.encrypt(
                secret.get_secret_value(), table=TABLE, column=column, row_id=token_id
            )
        sealed |= {column: ciphertext, f"{column}_key_id": key_id}
    return sealed


def _token(row: Any, keys: KeyRing) -> StoredToken:
    def opened(column: str) -> SecretStr:
        key_id = row[f"{column}_key_id"]
        try:
            return keys.decrypt(row[column], key_id, table=TABLE, column=column, row_id=row["id"])
        except (Tampered, UnknownKey) as error:
            raise Unreadable(error, row) from None

    return StoredToken(
        id=row["id"],
        server_id=row["server_id"],
        user_id=row["user_id"],
        issuer=row["issuer"],
        client_id=row["client_id"],
        token_url=row["token_url"],
        resource=row["resource"],
        scopes=row["scopes"],
        token_type=row["token_type"],
        access_token=opened("access_token"),
        refresh_token=opened("refresh_token") if row["refresh_token"] is not None else None,
        generation=row["generation"],
        lifetime_s=row["lifetime_seconds"],
        # By our own clock, which may be another than the database's.
        expires_at=datetime.now(UTC) + row["ends_in"] if row["ends_in"] is not None else None,
        needs_reauth=row["needs_reauth"],
        may_retry=row["may_retry"],
    )
