"""Groups of users, to which servers can be restricted.

Who changes what policy reads (members, or that a group is there) calls `policy_state.bump` first.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.core.errors import BadRequest, Conflict, NotFound
from chatd.core.text import is_line
from chatd.core.times import rfc3339
from chatd.store import tables
from chatd.store.db import Database
from chatd.store.users import username_of

NAME_LENGTH = 64
NAME_RULE = f"1 to {NAME_LENGTH} characters on one line, none of them invisible."

LIST_GROUPS = """
SELECT g.id, g.name, g.description, g.created_at,
    (SELECT count(*) FROM group_members m WHERE m.group_id = g.id) AS members,
    ARRAY(SELECT s.server_id FROM mcp_server_groups s WHERE s.group_id = g.id
        ORDER BY s.server_id) AS server_ids
FROM groups g
"""

LIST_MEMBERS = """
SELECT u.id, u.username, u.name, u.suspended FROM group_members m JOIN users u ON u.id = m.user_id
WHERE m.group_id = $1 AND u.username > $3
ORDER BY u.username LIMIT $2
"""

BUMP_SERVERS = text(
    """UPDATE mcp_server_configs SET version = version + 1
    WHERE id IN (SELECT server_id FROM mcp_server_groups WHERE group_id = :group)"""
)
"""A server that is known by its version has its groups with it."""

HELD = text(
    """SELECT ARRAY(SELECT CAST(user_id AS text) FROM group_members WHERE group_id = :group
            ORDER BY user_id) AS member_ids,
        ARRAY(SELECT CAST(server_id AS text) FROM mcp_server_groups WHERE group_id = :group
            ORDER BY server_id) AS server_ids"""
)

ADD_MEMBER = text(
    """INSERT INTO group_members (group_id, user_id) VALUES (:group, :user)
    ON CONFLICT DO NOTHING RETURNING user_id"""
)

REMOVE_MEMBER = text(
    "DELETE FROM group_members WHERE group_id = :group AND user_id = :user RETURNING user_id"
)


async def list_groups(db: Database) -> list[Any]:
    """By name."""
    return [_view(row) for row in await db.fetch(f"{LIST_GROUPS} ORDER BY g.name")]


async def show_group(db: Database, group_id: UUID) -> Any:
    """Raises `NotFound`."""
    row = await db.fetch_one(f"{LIST_GROUPS} WHERE g.id = $1", group_id)
    if row is None:
        raise _unknown()
    return _view(row)


async def create_group(session: AsyncSession, name: str, description: str = "") -> UUID:
    """Raises `BadRequest` for a name that will not do, `Conflict` for one that is taken."""
    if not 0 < len(name) <= NAME_LENGTH or name != name.strip() or not is_line(name):
        raise BadRequest("Invalid group name.", detail=NAME_RULE)
    row = tables.Group(name=name, description=description)
    session.add(row)
    await _flush(session, name)
    return row.id


async def update_group(
    session: AsyncSession, group_id: UUID, changes: dict[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The group as it was and as it is. Raises `NotFound`, `Conflict`."""
    row = await _lock(session, group_id)
    before = _told(row)
    for name, value in changes.items():
        setattr(row, name, value)
    await _flush(session, row.name)
    return before, _told(row)


async def delete_group(session: AsyncSession, group_id: UUID) -> dict[str, Any]:
    """The group as it was, with members and servers. Raises `NotFound`.

    A server restricted to it alone is then nobody's.
    """
    row = await _lock(session, group_id)
    connection = await session.connection()
    held = (await connection.execute(HELD, {"group": group_id})).mappings().one()
    await connection.execute(BUMP_SERVERS, {"group": group_id})
    await session.delete(row)
    await session.flush()
    return _told(row) | dict(held)


async def find_group(session: AsyncSession, name: str) -> UUID:
    """Raises `NotFound`."""
    table = tables.Group
    found = (await session.exec(select(table.id).where(table.name == name))).one_or_none()
    if found is None:
        raise NotFound(f"There is no group called {name}.")
    return found


async def list_members(
    db: Database, group_id: UUID, *, limit: int, after_id: UUID | None = None
) -> tuple[list[Any], bool]:
    """By username, and whether there are more. Raises `NotFound`, and as `search_users`."""
    await show_group(db, group_id)
    after = await username_of(db, after_id) if after_id is not None else ""
    rows = await db.fetch(LIST_MEMBERS, group_id, limit + 1, after)
    return [dict(row) | {"id": str(row["id"])} for row in rows[:limit]], len(rows) > limit


async def add_member(session: AsyncSession, group_id: UUID, user_id: UUID) -> bool:
    """False when they are one already. Raises `NotFound` for a group or user that is not there."""
    await _lock(session, group_id)
    user = select(tables.User.id).where(tables.User.id == user_id)
    if (await session.exec(user.with_for_update(read=True, key_share=True))).one_or_none() is None:
        raise NotFound("User not found.")
    return await _changed(session, ADD_MEMBER, group_id, user_id)


async def remove_member(session: AsyncSession, group_id: UUID, user_id: UUID) -> bool:
    """False when they are none. Raises `NotFound` for a group that is not there."""
    await _lock(session, group_id)
    return await _changed(session, REMOVE_MEMBER, group_id, user_id)


async def _changed(session: AsyncSession, statement: Any, group_id: UUID, user_id: UUID) -> bool:
    connection = await session.connection()
    found = await connection.execute(statement, {"group": group_id, "user": user_id})
    return bool(found.all())


async def _lock(session: AsyncSession, group_id: UUID) -> tables.Group:
    table = tables.Group
    row = (await session.exec(select(table).where(table.id == group_id).with_for_update())).first()
    if row is None:
        raise _unknown()
    return row


async def _flush(session: AsyncSession, name: str) -> None:
    try:
        await session.flush()
    except IntegrityError as error:
        raise Conflict(
            f"A group called {name} exists.",
            validations=[{"field": "name", "detail": "It is taken."}],
        ) from error


def _unknown() -> NotFound:
    return NotFound("Group not found.")


def _told(row: tables.Group) -> dict[str, Any]:
    return {"name": row.name, "description": row.description}


def _view(row: Any) -> Any:
    return {
        "id": str(row["id"]),
        "name": row["name"],
        "description": row["description"],
        "member_count": row["members"],
        "server_ids": [str(server_id) for server_id in row["server_ids"]],
        "created_at": rfc3339(row["created_at"]),
    }
