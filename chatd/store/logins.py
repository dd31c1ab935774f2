"""What a login changes of a user: their role and groups, as their provider says them.

All of it within one transaction, after `policy_state.bump`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.core.logins import Memberships, Profile
from chatd.store import users
from chatd.store.user_links import UserLink, add_link, note_login
from chatd.store.users import LOCK_ADMINS, User

TAKEN = text("SELECT username FROM users WHERE username = ANY(CAST(:names AS text[]))")

GROUPS_OF = text(
    """SELECT g.name FROM group_members m JOIN groups g ON g.id = m.group_id
    WHERE m.user_id = :user ORDER BY g.name"""
)

LEAVE = text(
    """DELETE FROM group_members m USING groups g
    WHERE m.group_id = g.id AND m.user_id = :user
        AND (CAST(:managed AS text[]) IS NULL OR g.name = ANY(CAST(:managed AS text[])))
        AND NOT g.name = ANY(CAST(:names AS text[]))"""
)

JOIN = text(
    """INSERT INTO group_members (group_id, user_id)
    SELECT id, :user FROM groups WHERE name = ANY(CAST(:names AS text[]))
    ON CONFLICT DO NOTHING"""
)


@dataclass(frozen=True, slots=True)
class Entered:
    """A user as their login found and left them; `before` None: they are new."""

    before: User | None
    after: User
    groups_before: Sequence[str]
    groups_after: Sequence[str]


async def enter(
    session: AsyncSession, link: UserLink | None, issuer: str, profile: Profile
) -> Entered:
    """Without a link a new user, with one. One who is suspended stays as they are.

    The last administrator remains one, whatever their provider says. Raises `NotFound`, and
    `Conflict` when all names are taken, or name or link were taken just now.
    """
    noted: dict[str, Any] = {"email": profile.email, "claims": profile.told()}
    if link is None:
        before, after = None, await _join(session, profile)
        await add_link(session, after.id, issuer=issuer, subject=profile.subject, **noted)
    else:
        admins = await _admins(session) if profile.role is not None else ()
        before = after = await users.lock_user(session, link.user_id)
        if before.suspended:
            return Entered(before, before, (), ())
        if profile.role is not None and profile.role != before.role:
            after = await _set_role(session, before, profile, admins)
        await note_login(session, link.id, **noted)
    groups = await _groups_of(session, after.id)
    if profile.memberships is None:
        return Entered(before, after, groups, groups)
    await _move(session, after.id, profile.memberships)
    return Entered(before, after, groups, await _groups_of(session, after.id))


async def _join(session: AsyncSession, profile: Profile) -> User:
    free = await _free(session, profile.usernames)
    role = profile.role or "member"
    return await users.create_user(session, free, role=role, name=profile.name)


async def _free(session: AsyncSession, names: Sequence[str]) -> str:
    """Where none is left it is the last one, which will tell so."""
    connection = await session.connection()
    taken: Collection[str] = set((await connection.execute(TAKEN, {"names": names})).scalars())
    return next((name for name in names if name not in taken), names[-1])


async def _admins(session: AsyncSession) -> Collection[UUID]:
    """Before any other user is locked, as with every change of a user: who does it the other way
    round could wait for somebody who waits for them."""
    return set((await (await session.connection()).execute(LOCK_ADMINS)).scalars())


async def _set_role(
    session: AsyncSession, user: User, profile: Profile, admins: Collection[UUID]
) -> User:
    assert profile.role is not None
    if profile.role != "admin" and admins == {user.id}:
        return user
    _, after = await users.update_user(session, user.id, {"role": profile.role})
    return after


async def _move(session: AsyncSession, user_id: UUID, to: Memberships) -> None:
    """Into groups that are there: a claim makes none."""
    connection = await session.connection()
    names = sorted(to.names)
    managed = sorted(to.managed) if to.managed is not None else None
    await connection.execute(LEAVE, {"user": user_id, "names": names, "managed": managed})
    await connection.execute(JOIN, {"user": user_id, "names": names})


async def _groups_of(session: AsyncSession, user_id: UUID) -> Sequence[str]:
    connection = await session.connection()
    return list((await connection.execute(GROUPS_OF, {"user": user_id})).scalars())
