"""Sessions in a browser: who they let in, and that a lost answer signs nobody out."""

import asyncio

import pytest

from chatd.core.chats import Actor
from chatd.store import sessions, users
from chatd.store.db import Database
from chatd.store.sessions import NewSession, SignedIn
from tests.seed import make_user


async def sign_in(db: Database, user: Actor, seconds: float = 3600.0) -> NewSession:
    async with db.transaction() as session:
        return await sessions.create_session(session, user.user_id, seconds=seconds)


async def seen(db: Database, token: str) -> SignedIn:
    found = await sessions.authenticate_session(db, token)
    assert found is not None
    return found


async def end(db: Database, made: NewSession) -> bool:
    async with db.transaction() as session:
        return await sessions.end_session(session, made.id)


async def later(db: Database, minutes: float) -> None:
    """As if so much time had gone by."""
    await db.fetch(
        """UPDATE sessions SET rotated_at = rotated_at - make_interval(secs => $1 * 60),
            seen_at = seen_at - make_interval(secs => $1 * 60),
            last_used_at = last_used_at - make_interval(secs => $1 * 60),
            expires_at = expires_at - make_interval(secs => $1 * 60)""",
        minutes,
    )


async def rotated(db: Database, token: str) -> str:
    """The token that the browser gets next."""
    await later(db, 16)
    found = await seen(db, token)
    assert found.due
    new = await sessions.rotate_session(db, found.session_id, token)
    assert new is not None
    return new


@pytest.fixture
async def user(db: Database) -> Actor:
    return await make_user(db)


async def test_a_session_lets_its_user_in(db: Database, user: Actor) -> None:
    made = await sign_in(db, user)
    found = await seen(db, made.token)
    assert (found.session_id, found.actor, found.due) == (made.id, user, False)
    assert await sessions.sessions_alive(db, [made.id]) == {made.id}
    assert await sessions.authenticate_session(db, made.csrf) is None


async def test_what_a_page_sends_has_its_own_proof(db: Database, user: Actor) -> None:
    made = await sign_in(db, user)
    found = await seen(db, made.token)
    assert found.sent_by_us(made.csrf)
    assert not found.sent_by_us(made.token)
    assert not found.sent_by_us("")


async def test_only_hashes_are_kept(db: Database, user: Actor) -> None:
    made = await sign_in(db, user)
    (row,) = await db.fetch("SELECT * FROM sessions")
    told = repr(dict(row)) + repr(made) + repr(await seen(db, made.token))
    assert made.token not in told
    assert made.csrf not in told


async def test_a_session_ends(db: Database, user: Actor) -> None:
    over = await sign_in(db, user, seconds=0.0)
    assert await sessions.authenticate_session(db, over.token) is None
    made = await sign_in(db, user)
    assert await end(db, made)
    assert not await end(db, made)
    assert await sessions.authenticate_session(db, made.token) is None
    assert await sessions.sessions_alive(db, [over.id, made.id]) == frozenset()


async def test_signing_out_everywhere_ends_them_all(db: Database, user: Actor) -> None:
    made = [await sign_in(db, user) for _ in range(2)]
    other = await sign_in(db, await make_user(db, "eve"))
    async with db.transaction() as session:
        await sessions.end_sessions_of(session, user.user_id)
    alive = await sessions.sessions_alive(db, [other.id, *(each.id for each in made)])
    assert alive == {other.id}


async def test_who_was_suspended_signs_in_again(db: Database, user: Actor) -> None:
    made = await sign_in(db, user)
    for suspended in (True, False):
        async with db.transaction() as session:
            await users.update_user(session, user.user_id, {"suspended": suspended})
        assert await sessions.authenticate_session(db, made.token) is None


async def test_the_token_changes_now_and_then(db: Database, user: Actor) -> None:
    made = await sign_in(db, user)
    new = await rotated(db, made.token)
    assert new != made.token
    assert not (await seen(db, new)).due
    await later(db, 2)
    assert await sessions.authenticate_session(db, made.token) is None
    assert (await seen(db, new)).session_id == made.id


async def test_requests_that_were_on_their_way_are_let_in(db: Database, user: Actor) -> None:
    made = await sign_in(db, user)
    new = await rotated(db, made.token)
    await seen(db, new)
    assert not (await seen(db, made.token)).due


async def test_of_requests_at_once_one_changes_the_token(db: Database, user: Actor) -> None:
    made = await sign_in(db, user)
    await later(db, 16)
    made_anew = await asyncio.gather(
        *(sessions.rotate_session(db, made.id, made.token) for _ in range(10))
    )
    assert made_anew.count(None) == 9


async def test_a_token_that_is_lost_on_its_way_signs_nobody_out(db: Database, user: Actor) -> None:
    made = await sign_in(db, user)
    lost = await rotated(db, made.token)
    await later(db, 10)
    found = await seen(db, made.token)
    assert found.due
    new = await sessions.rotate_session(db, found.session_id, made.token)
    assert new is not None
    assert await sessions.authenticate_session(db, lost) is None
    await seen(db, new)


async def test_a_former_token_tells_whose_session_it_was(db: Database, user: Actor) -> None:
    made = await sign_in(db, user)
    second = await rotated(db, made.token)
    newest = await rotated(db, second)
    await seen(db, newest)
    for former, minutes in ((made.token, 0), (second, 11)):
        await later(db, minutes)
        assert await sessions.authenticate_session(db, former) is None
        found = await sessions.find_reused(db, former)
        assert found == sessions.Reused(made.id, user.user_id)
    assert await sessions.find_reused(db, newest) is None


async def test_the_token_before_may_be_a_slow_requests(db: Database, user: Actor) -> None:
    made = await sign_in(db, user)
    newest = await rotated(db, made.token)
    await seen(db, newest)
    await later(db, 9)
    assert await sessions.authenticate_session(db, made.token) is None
    assert await sessions.find_reused(db, made.token) is None
    found = await sessions.find_reused(db, made.token, slow_too=True)
    assert found == sessions.Reused(made.id, user.user_id)
    assert await sessions.find_reused(db, newest, slow_too=True) is None


async def test_what_was_never_a_token_or_is_over_tells_nothing(db: Database, user: Actor) -> None:
    made = await sign_in(db, user)
    newest = await rotated(db, made.token)
    assert await sessions.find_reused(db, "chatds_" + "x" * 67) is None
    assert await sessions.find_reused(db, newest) is None
    await end(db, made)
    assert await sessions.find_reused(db, made.token) is None


async def test_a_token_is_not_changed_without_need(db: Database, user: Actor) -> None:
    made = await sign_in(db, user)
    assert await sessions.rotate_session(db, made.id, made.token) is None


async def test_sessions_that_are_long_over_are_removed(db: Database, user: Actor) -> None:
    await sign_in(db, user, seconds=0.0)
    await sign_in(db, user, seconds=-90_000.0)
    await sign_in(db, user)
    assert await sessions.forget_sessions(db) == 1
    assert len(await db.fetch("SELECT 1 FROM sessions")) == 2
