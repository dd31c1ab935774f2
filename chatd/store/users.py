"""Users: who may sign in, and as what. There is always an administrator who can."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypedDict, cast
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.core.errors import BadRequest, Conflict, NotFound
from chatd.core.times import rfc3339
from chatd.store import tables
from chatd.store.db import Database

Role = Literal["admin", "member"]

USERNAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")
USERNAME_RULE = "1 to 64 of a-z 0-9 . _ @ + -, beginning with a letter or a digit."
NAME_LENGTH = 128

LOCK_ADMINS = text(
    """SELECT id FROM users WHERE role = 'admin' AND NOT suspended
    ORDER BY id FOR NO KEY UPDATE"""
)
"""Whoever waits here reads anew who is left: two administrators cannot remove each other."""

END_SESSIONS = text(
    """UPDATE sessions SET revoked_at = clock_timestamp()
    WHERE user_id = :user AND revoked_at IS NULL"""
)

END_FLOWS = text("DELETE FROM oauth_states WHERE user_id = :user")
"""Used ones too: see `oauth_states.END`."""

_SHOWN = """
    u.id, u.username, u.name, u.role, u.suspended, u.spend_limit_micros, u.created_at,
    (SELECT max(t.last_used_at) FROM api_tokens t WHERE t.user_id = u.id) AS last_used_at
"""

LIST_USERS = f"""
SELECT {_SHOWN} FROM users u
WHERE ($1 = '' OR strpos(u.username, lower($1)) > 0 OR strpos(lower(u.name), lower($1)) > 0)
    AND u.username > $3
ORDER BY u.username LIMIT $2
"""

SHOW_USER = f"SELECT {_SHOWN} FROM users u WHERE u.id = $1"

GROUPS_OF = """
SELECT g.id, g.name FROM group_members m JOIN groups g ON g.id = m.group_id
WHERE m.user_id = $1 ORDER BY g.name
"""


class Changes(TypedDict, total=False):
    """What is asked of a user's row; what is absent stays."""

    name: str
    role: Role
    suspended: bool


@dataclass(frozen=True, slots=True)
class User:
    id: UUID
    username: str
    name: str
    role: Role
    suspended: bool
    created_at: datetime

    def told(self) -> Mapping[str, Any]:
        """For the audit log."""
        return {
            "username": self.username,
            "name": self.name,
            "role": self.role,
            "suspended": self.suspended,
        }


async def create_user(
    session: AsyncSession, username: str, *, role: Role = "member", name: str = ""
) -> User:
    """Raises `BadRequest` for a name that will not do, `Conflict` for one that is taken."""
    if not USERNAME.fullmatch(username):
        raise BadRequest("Invalid username.", detail=USERNAME_RULE)
    if len(name) > NAME_LENGTH:
        raise BadRequest(f"A name has at most {NAME_LENGTH} characters.")
    row = tables.User(username=username, role=role, name=name or username)
    session.add(row)
    try:
        await session.flush()
    except IntegrityError as error:
        raise Conflict(
            f"A user called {username} exists.",
            validations=[{"field": "username", "detail": "It is taken."}],
        ) from error
    await session.refresh(row)
    return _user(row)


async def list_users(session: AsyncSession) -> list[User]:
    """All users by name."""
    rows = await session.exec(select(tables.User).order_by(col(tables.User.username)))
    return [_user(row) for row in rows]


async def search_users(
    db: Database, search: str = "", *, limit: int, after_id: UUID | None = None
) -> tuple[list[Any], bool]:
    """By username, those in whose names the text is, and whether there are more.

    `after_id` is the last user of the page before. Raises `BadRequest` for one who is gone.
    """
    after = await username_of(db, after_id) if after_id is not None else ""
    rows = await db.fetch(LIST_USERS, search, limit + 1, after)
    return [_view(row) for row in rows[:limit]], len(rows) > limit


async def username_of(db: Database, after_id: UUID) -> str:
    """Where the page after this user begins. Raises `BadRequest`."""
    row = await db.fetch_one("SELECT username FROM users WHERE id = $1", after_id)
    if row is None:
        raise BadRequest(
            "Invalid after_id.",
            detail="That user is gone: begin with the first page.",
            validations=[{"field": "after_id", "detail": "There is no such user."}],
        )
    return row["username"]


async def show_user(db: Database, user_id: UUID) -> Any:
    """With their groups. Raises `NotFound`."""
    row = await db.fetch_one(SHOW_USER, user_id)
    if row is None:
        raise _unknown()
    groups = await db.fetch(GROUPS_OF, user_id)
    return {
        **_view(row),
        "groups": [{"id": str(group["id"]), "name": group["name"]} for group in groups],
    }


async def get_user(session: AsyncSession, username: str) -> User:
    """Raises `NotFound`."""
    found = await session.exec(select(tables.User).where(tables.User.username == username))
    row = found.one_or_none()
    if row is None:
        raise NotFound(f"There is no user called {username}.")
    return _user(row)


async def lock_user(session: AsyncSession, user_id: UUID) -> User:
    """Until the end of the transaction nobody else changes them. Raises `NotFound`."""
    return _user(await _lock(session, user_id))


async def update_user(session: AsyncSession, user_id: UUID, changes: Changes) -> tuple[User, User]:
    """The user as they were and as they are. Who suspends calls `policy_state.bump` first.

    Raises `NotFound`, and `Conflict` for what would leave nobody to administrate.
    """
    admins = await _lock_admins(session) if changes.keys() - {"name"} else set[UUID]()
    row = await _lock(session, user_id)
    before = _user(row)
    for name, value in changes.items():
        setattr(row, name, value)
    if admins == {user_id} and (row.suspended or row.role != "admin"):
        raise _last_admin()
    await session.flush()
    if row.suspended and not before.suspended:
        await _sign_out(session, user_id)
    return before, _user(row)


async def suspend_for_erasure(session: AsyncSession, user_id: UUID) -> None:
    """The first step of erasing: nobody can use their tokens from here on, and in no group they
    are. Call `policy_state.bump` first. Raises `NotFound`, `Conflict` as `update_user` does."""
    await update_user(session, user_id, {"suspended": True})
    connection = await session.connection()
    await connection.execute(
        text("DELETE FROM group_members WHERE user_id = :user"), {"user": user_id}
    )


async def _sign_out(session: AsyncSession, user_id: UUID) -> None:
    """For good: who is back signs in again. Tokens of the API only rest meanwhile."""
    connection = await session.connection()
    for statement in (END_SESSIONS, END_FLOWS):
        await connection.execute(statement, {"user": user_id})


async def _lock_admins(session: AsyncSession) -> set[UUID]:
    """Administrators who are not suspended."""
    connection = await session.connection()
    return set((await connection.execute(LOCK_ADMINS)).scalars())


async def _lock(session: AsyncSession, user_id: UUID) -> tables.User:
    table = tables.User
    query = select(table).where(table.id == user_id).with_for_update(key_share=True)
    row = (await session.exec(query)).one_or_none()
    if row is None:
        raise _unknown()
    return row


def _unknown() -> NotFound:
    return NotFound("User not found.")


def _last_admin() -> Conflict:
    return Conflict(
        "This is the last administrator.", detail="Make somebody else an administrator first."
    )


def _user(row: tables.User) -> User:
    return User(
        id=row.id,
        username=row.username,
        name=row.name,
        role=cast(Role, row.role),
        suspended=row.suspended,
        created_at=cast(datetime, row.created_at),
    )


def _view(row: Any) -> Any:
    return {
        "id": str(row["id"]),
        "username": row["username"],
        "name": row["name"],
        "role": row["role"],
        "suspended": row["suspended"],
        "spend_limit_micros": row["spend_limit_micros"],
        "created_at": rfc3339(row["created_at"]),
        "last_used_at": rfc3339(row["last_used_at"]),
    }
