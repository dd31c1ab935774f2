"""Users: who may sign in, and as what."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, cast
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.core.errors import BadRequest, Conflict, NotFound
from chatd.store import tables

Role = Literal["admin", "member"]

_USERNAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")
_NAME_LENGTH = 128


@dataclass(frozen=True, slots=True)
class User:
    id: UUID
    username: str
    name: str
    role: Role
    suspended: bool
    created_at: datetime


async def create_user(
    session: AsyncSession, username: str, *, role: Role = "member", name: str = ""
) -> User:
    """Raises `BadRequest` for a name that will not do, `Conflict` for one that is taken."""
    if not _USERNAME.fullmatch(username):
        raise BadRequest(
            "Invalid username.",
            detail="1 to 64 of a-z 0-9 . _ @ + -, beginning with a letter or a digit.",
        )
    if len(name) > _NAME_LENGTH:
        raise BadRequest(f"A name has at most {_NAME_LENGTH} characters.")
    row = tables.User(username=username, role=role, name=name or username)
    session.add(row)
    try:
        await session.flush()
    except IntegrityError as error:
        raise Conflict(f"A user called {username} exists.") from error
    await session.refresh(row)
    return _user(row)


async def list_users(session: AsyncSession) -> list[User]:
    """All users by name."""
    rows = await session.exec(select(tables.User).order_by(col(tables.User.username)))
    return [_user(row) for row in rows]


async def get_user(session: AsyncSession, username: str) -> User:
    """Raises `NotFound`."""
    found = await session.exec(select(tables.User).where(tables.User.username == username))
    row = found.one_or_none()
    if row is None:
        raise NotFound(f"There is no user called {username}.")
    return _user(row)


def _user(row: tables.User) -> User:
    return User(
        id=row.id,
        username=row.username,
        name=row.name,
        role=cast(Role, row.role),
        suspended=row.suspended,
        created_at=cast(datetime, row.created_at),
    )
