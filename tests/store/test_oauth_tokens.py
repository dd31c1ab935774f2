"""Tokens at rest: one refresher at a time, and nobody who was overtaken changes anything."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr

from chatd.core.chats import Actor
from chatd.core.oauth import ReauthReason
from chatd.store import oauth_tokens, policy_state
from chatd.store.db import Database
from chatd.store.ids import new_id
from chatd.store.oauth_tokens import Lease, Unreadable
from chatd.store.secrets import KeyRing, Tampered
from tests.seed import KEYS, make_server, make_user
from tests.store.granting import connect, grant_of, stored
from tests.waiting import one


@dataclass(frozen=True)
class World:
    db: Database
    user: Actor
    server: UUID

    async def connect(self, name: str = "first", **fields: Any) -> Any:
        return await connect(self.db, self.user.user_id, self.server, name, **fields)

    async def policy(self) -> int:
        return (await policy_state.read_state(self.db)).version

    async def left_behind(self, token_id: UUID) -> None:
        """As if who holds the lease had died, long ago."""
        await self.db.fetch(
            """UPDATE oauth_tokens SET refreshing_until = clock_timestamp() - interval '1 s'
            WHERE id = $1""",
            token_id,
        )


@pytest.fixture
async def world(db: Database) -> World:
    server = await make_server(db, auth_type="oauth2", oauth2_client_id="client")
    return World(db, await make_user(db), server)


@pytest.fixture
async def other(database_url: str) -> AsyncGenerator[Database]:
    """Another process."""
    db = Database(database_url, pool_size=2)
    yield db
    await db.close()


async def lease_of(db: Database, token: Any) -> Lease:
    lease = await oauth_tokens.take_lease(db, token.id, generation=token.generation)
    assert lease is not None
    return lease


async def test_a_grant_is_read_as_it_was_saved(world: World) -> None:
    token = await world.connect(scope="read")
    assert (token.server_id, token.user_id) == (world.server, world.user.user_id)
    assert token.access_token.get_secret_value() == "access first"
    assert token.refresh_token.get_secret_value() == "refresh first"
    assert (token.scopes, token.token_type, token.generation) == ("read", "Bearer", 1)
    assert (token.lifetime_s, token.needs_reauth) == (3600.0, None)
    found = await oauth_tokens.read_token_of(
        world.db, KEYS, server_id=world.server, user_id=world.user.user_id
    )
    assert found == token


@pytest.mark.parametrize(
    ("given", "kept"),
    [(None, None), (0.0, 0.0), (-5.0, 0.0), (float("inf"), None), (1e18, 315_360_000.0)],
)
async def test_any_lifetime_can_be_kept(
    world: World, given: float | None, kept: float | None
) -> None:
    token = await world.connect(expires_in_s=given)
    assert token.lifetime_s == kept
    assert (token.expires_at is None) == (kept is None)


async def test_without_a_scope_in_the_answer_it_is_what_was_asked_for(world: World) -> None:
    assert (await world.connect()).scopes == "read write"


async def test_tokens_of_a_login_and_of_the_deployment_stand_beside_it(world: World) -> None:
    db, user = world.db, world.user.user_id
    own = await world.connect("own")
    login = await connect(db, user, None, "login")
    service = await connect(db, None, world.server, "service")
    for token in (own, login, service):
        where = {"server_id": token.server_id, "user_id": token.user_id}
        assert await oauth_tokens.read_token_of(db, KEYS, **where) == token
    assert await oauth_tokens.tokens_of(db, KEYS, user) == [own, login]


async def test_a_new_grant_is_a_new_row_and_moves_policy(world: World) -> None:
    before, version = await world.connect(), await world.policy()
    after = await world.connect("second", refresh_token=None)
    assert after.id != before.id
    assert (after.generation, after.refresh_token) == (1, None)
    assert await oauth_tokens.read_token(world.db, KEYS, before.id) is None
    assert await world.policy() > version


async def test_what_a_user_did_not_grant_moves_no_policy(world: World) -> None:
    version = await world.policy()
    async with world.db.transaction() as session:
        await oauth_tokens.save_grant(
            session,
            KEYS,
            server_id=world.server,
            user_id=None,
            issuer="",
            client_id="client",
            token_url="https://issuer.example/token",
            resource="",
            scopes="",
            grant=grant_of(),
            connects=False,
        )
    assert await world.policy() == version


async def test_of_two_grants_at_once_one_stays_whole(world: World, other: Database) -> None:
    user = world.user.user_id
    await asyncio.gather(
        *(
            connect_quietly(db, user, world.server, name)
            for db in (world.db, other)
            for name in "ab"
        )
    )
    (token,) = await oauth_tokens.tokens_of(world.db, KEYS, user)
    name = token.access_token.get_secret_value().removeprefix("access ")
    assert token.refresh_token is not None
    assert token.refresh_token.get_secret_value() == f"refresh {name}"


async def connect_quietly(db: Database, user: UUID, server: UUID, name: str) -> None:
    async with db.transaction() as session:
        await oauth_tokens.save_grant(
            session,
            KEYS,
            server_id=server,
            user_id=user,
            issuer="",
            client_id="client",
            token_url="",
            resource="",
            scopes="",
            grant=grant_of(name),
        )


async def test_one_of_many_takes_the_lease(world: World, other: Database) -> None:
    token = await world.connect()
    taken = await asyncio.gather(
        *(
            oauth_tokens.take_lease(db, token.id, generation=1)
            for db in (world.db, other)
            for _ in range(10)
        )
    )
    (lease,) = [lease for lease in taken if lease is not None]
    assert not lease.left_behind


async def test_a_refresh_is_the_next_generation_and_frees_the_lease(world: World) -> None:
    token = await world.connect()
    lease, version = await lease_of(world.db, token), await world.policy()
    new = await oauth_tokens.save_refresh(world.db, KEYS, token, lease.id, grant_of("second"))
    assert new is not None
    assert (new.id, new.generation) == (token.id, 2)
    assert new.access_token.get_secret_value() == "access second"
    assert await stored(world.db, token.id) == new
    assert await oauth_tokens.take_lease(world.db, token.id, generation=1) is None
    assert await oauth_tokens.take_lease(world.db, token.id, generation=2) is not None
    assert await world.policy() == version


async def test_without_a_new_refresh_token_the_old_one_stays(world: World) -> None:
    token = await world.connect()
    lease = await lease_of(world.db, token)
    answer = grant_of("second", refresh_token=None)
    new = await oauth_tokens.save_refresh(world.db, KEYS, token, lease.id, answer)
    assert new is not None
    assert new.refresh_token == SecretStr("refresh first")
    assert new.scopes == token.scopes


async def test_who_was_overtaken_saves_nothing(world: World) -> None:
    token = await world.connect()
    slow = await lease_of(world.db, token)
    await world.left_behind(token.id)
    quick = await lease_of(world.db, token)
    new = await oauth_tokens.save_refresh(world.db, KEYS, token, quick.id, grant_of("quick"))
    late = await oauth_tokens.save_refresh(world.db, KEYS, token, slow.id, grant_of("slow"))
    assert late is None
    assert await stored(world.db, token.id) == new


async def test_what_the_server_handed_out_is_kept_also_after_the_lease(world: World) -> None:
    token = await world.connect()
    slow = await lease_of(world.db, token)
    await world.left_behind(token.id)
    other = await lease_of(world.db, token)
    saved = await oauth_tokens.save_refresh(world.db, KEYS, token, slow.id, grant_of("slow"))
    assert saved is not None
    assert await oauth_tokens.take_lease(world.db, token.id, generation=2) is None
    await oauth_tokens.release(world.db, token.id, other.id, error="")
    assert await oauth_tokens.take_lease(world.db, token.id, generation=2) is not None


async def test_a_new_grant_overtakes_a_refresh(world: World) -> None:
    token = await world.connect()
    lease = await lease_of(world.db, token)
    anew = await world.connect("anew")
    assert await oauth_tokens.save_refresh(world.db, KEYS, token, lease.id, grant_of("x")) is None
    assert not await oauth_tokens.mark_reauth(
        world.db, token.id, generation=1, reason="invalid_grant"
    )
    assert (await stored(world.db, anew.id)).needs_reauth is None


async def test_a_lease_that_was_left_behind_is_told_of_until_a_refresh(world: World) -> None:
    token = await world.connect()
    await lease_of(world.db, token)
    await world.left_behind(token.id)
    second = await lease_of(world.db, token)
    assert second.left_behind
    await oauth_tokens.release(world.db, token.id, second.id, error="503")
    third = await lease_of(world.db, token)
    assert third.left_behind
    new = await oauth_tokens.save_refresh(world.db, KEYS, token, third.id, grant_of("x"))
    assert not (await lease_of(world.db, new)).left_behind


async def test_a_lease_that_was_given_back_leaves_nothing_behind(world: World) -> None:
    token = await world.connect()
    lease = await lease_of(world.db, token)
    await oauth_tokens.release(world.db, token.id, uuid4(), error="not mine")
    assert await oauth_tokens.take_lease(world.db, token.id, generation=1) is None
    await oauth_tokens.release(world.db, token.id, lease.id, error="503")
    assert not (await lease_of(world.db, token)).left_behind
    row = await one(world.db, "SELECT last_error FROM oauth_tokens")
    assert row["last_error"] == "503"


async def test_after_a_failure_everybody_can_be_kept_waiting(world: World) -> None:
    token = await world.connect()
    lease = await lease_of(world.db, token)
    await oauth_tokens.release(world.db, token.id, lease.id, error="503", pause_s=60.0)
    assert await oauth_tokens.take_lease(world.db, token.id, generation=1) is None
    await world.left_behind(token.id)
    assert not (await lease_of(world.db, token)).left_behind


async def test_marking_counts_once_and_moves_policy(world: World) -> None:
    token = await world.connect()
    version = await world.policy()
    marks = await asyncio.gather(
        *(
            oauth_tokens.mark_reauth(world.db, token.id, generation=1, reason="invalid_grant")
            for _ in range(3)
        )
    )
    assert sorted(marks) == [False, False, True]
    assert (await stored(world.db, token.id)).needs_reauth == "invalid_grant"
    assert await world.policy() == version + 1
    assert await oauth_tokens.take_lease(world.db, token.id, generation=1) is None


async def test_a_token_of_another_generation_is_not_marked(world: World) -> None:
    token = await world.connect()
    lease = await lease_of(world.db, token)
    await oauth_tokens.save_refresh(world.db, KEYS, token, lease.id, grant_of("second"))
    version = await world.policy()
    mark = oauth_tokens.mark_reauth
    assert not await mark(world.db, token.id, generation=1, reason="invalid_grant")
    assert await world.policy() == version
    assert await mark(world.db, token.id, generation=2, reason="invalid_grant")
    assert (await stored(world.db, token.id)).needs_reauth == "invalid_grant"


async def test_a_ciphertext_that_was_moved_does_not_open(world: World) -> None:
    mine = await world.connect("mine")
    ada = await make_user(world.db, "eve")
    hers = await connect(world.db, ada.user_id, world.server, "hers")
    await world.db.fetch(
        """UPDATE oauth_tokens t SET access_token = o.access_token FROM oauth_tokens o
        WHERE t.id = $1 AND o.id = $2""",
        hers.id,
        mine.id,
    )
    with pytest.raises(Tampered):
        await oauth_tokens.read_token(world.db, KEYS, hers.id)
    await world.db.fetch(
        "UPDATE oauth_tokens SET access_token = refresh_token WHERE id = $1", mine.id
    )
    with pytest.raises(Tampered):
        await oauth_tokens.read_token(world.db, KEYS, mine.id)
    assert await oauth_tokens.tokens_of(world.db, KEYS, ada.user_id) == []


async def test_a_token_of_an_unknown_key_is_told_from_none(world: World) -> None:
    token = await world.connect()
    with pytest.raises(Unreadable, match="'test'"):
        await oauth_tokens.read_token(world.db, KeyRing({"other": b"o" * 32}), token.id)
    assert await oauth_tokens.read_token(world.db, KEYS, new_id()) is None


@pytest.mark.parametrize(
    ("reason", "saved"),
    [("tampered", True), ("unauthorized", True), ("refresh_refused", True), ("expired", False)],
)
async def test_a_doubt_that_comes_up_during_a_refresh_costs_no_rotation(
    world: World, reason: ReauthReason, *, saved: bool
) -> None:
    token = await world.connect()
    lease = await lease_of(world.db, token)
    assert await oauth_tokens.mark_reauth(world.db, token.id, generation=1, reason=reason)
    save = oauth_tokens.save_refresh
    assert (await save(world.db, KEYS, token, lease.id, grant_of("x")) is not None) == saved
    now = await stored(world.db, token.id)
    assert (now.generation, now.needs_reauth) == ((2, None) if saved else (1, reason))


async def test_a_step_up_asks_for_the_union_and_not_for_ever(world: World) -> None:
    token = await world.connect(scope="read")
    want = oauth_tokens.want_scopes
    assert not await want(world.db, token.id, "read")
    assert await want(world.db, token.id, "write  read")
    assert await wanted(world.db) == "read write"
    assert await want(world.db, token.id, "admin")
    assert await wanted(world.db) == "read write admin"
    token = await world.connect(scope="read")
    assert await wanted(world.db) == ""
    assert await want(world.db, token.id, "write")
    assert not await want(world.db, token.id, "more")


async def wanted(db: Database) -> str:
    return (await one(db, "SELECT wanted_scopes FROM oauth_tokens"))["wanted_scopes"]


async def test_connecting_for_another_reason_counts_step_ups_anew(world: World) -> None:
    token = await world.connect(scope="read")
    for scope in ("a", "b", "c"):
        assert await oauth_tokens.want_scopes(world.db, token.id, scope)
    await world.connect(scope="read a b c")
    token = await world.connect(scope="read")
    assert await oauth_tokens.want_scopes(world.db, token.id, "d")


async def test_only_tokens_that_lie_idle_are_due(world: World) -> None:
    db = world.db
    token = await world.connect()
    eve = await make_user(db, "eve")
    await connect(db, eve.user_id, world.server, "no refresh", refresh_token=None)
    bob = await make_user(db, "bob")
    await connect(db, bob.user_id, world.server)
    await db.fetch("UPDATE users SET suspended = true WHERE id = $1", bob.user_id)
    assert await oauth_tokens.take_due(db, days=7, limit=10) == []
    await db.fetch("UPDATE oauth_tokens SET refreshed_at = refreshed_at - interval '8 days'")
    await lease_of(db, token)
    assert await oauth_tokens.take_due(db, days=7, limit=10) == []
    await db.fetch("UPDATE oauth_tokens SET attempted_at = attempted_at - interval '2 hours'")
    assert await oauth_tokens.take_due(db, days=7, limit=10) == [token.id]
    assert await oauth_tokens.take_due(db, days=7, limit=10) == []


async def test_a_use_is_noted_once_a_minute(world: World) -> None:
    token = await world.connect()
    await oauth_tokens.touch(world.db, token.id)
    first = await one(world.db, "SELECT used_at FROM oauth_tokens")
    await oauth_tokens.touch(world.db, token.id)
    assert await one(world.db, "SELECT used_at FROM oauth_tokens") == first
    assert first["used_at"] is not None


async def test_disconnecting_removes_this_one_and_moves_policy(world: World) -> None:
    await world.connect()
    login = await connect(world.db, world.user.user_id)
    version = await world.policy()
    where = {"server_id": world.server, "user_id": world.user.user_id}
    for there in (True, False):
        async with world.db.transaction() as session:
            assert await oauth_tokens.delete_token(session, **where) is there
    assert await world.policy() > version
    assert await oauth_tokens.tokens_of(world.db, KEYS, world.user.user_id) == [login]


async def test_nothing_that_is_shown_of_a_token_has_a_secret_in_it(world: World) -> None:
    token = await world.connect()
    assert "access first" not in repr(token)
    assert "refresh first" not in repr(token)
