"""Permits of streams: who loses theirs, when, and who does not."""

from collections.abc import AsyncGenerator
from typing import Any, cast
from uuid import UUID

import pytest
from redis.asyncio import Redis

from chatd.api.permits import Permit, Permits
from chatd.core.chats import Actor
from chatd.people import REVOKED
from chatd.store import tokens
from chatd.store.db import Database
from chatd.stream.listener import Listener
from tests.seed import make_user
from tests.waiting import soon, until

NEVER_S = 3600.0


async def new_actor(db: Database, name: str) -> Actor:
    user = await make_user(db, name)
    async with db.transaction() as session:
        token = await tokens.create_token(session, user.user_id, name)
    return Actor(user.user_id, user.role, token.id)


async def suspend(db: Database, *users: UUID) -> None:
    await db.fetch("UPDATE users SET suspended = true WHERE id = ANY ($1::uuid[])", list(users))


async def say(redis: Redis, words: object) -> None:
    async def heard() -> bool:
        found = await cast(Any, redis).pubsub_numsub(REVOKED)
        return dict(found)[REVOKED.encode()] == 1

    await until(heard)
    await cast(Any, redis).publish(REVOKED, str(words))


@pytest.fixture
async def listener(redis: Redis) -> AsyncGenerator[Listener]:
    made = Listener(redis)
    made.start()
    yield made
    await made.close()


@pytest.fixture
async def told(db: Database, listener: Listener) -> AsyncGenerator[Permits]:
    """These look at nothing of which they are not told."""
    made = Permits(db, listener, NEVER_S)
    made.start()
    yield made
    await made.close()


def begin(permits: Permits, actor: Actor) -> tuple[Permit, list[bool]]:
    permit, nudges = permits.admit(actor), list[bool]()
    permit.begin(lambda: nudges.append(permit.revoked))
    return permit, nudges


async def test_only_the_user_that_is_named_is_looked_at(
    db: Database, redis: Redis, told: Permits
) -> None:
    ada, bob = await new_actor(db, "ada"), await new_actor(db, "bob")
    (first, nudges), (second, _) = begin(told, ada), begin(told, bob)
    await suspend(db, ada.user_id, bob.user_id)
    for words in ("nonsense", ada.user_id):
        await say(redis, words)
    await soon(lambda: first.revoked)
    assert nudges == [True]
    assert not second.revoked


async def test_who_is_named_and_may_go_on_does(db: Database, redis: Redis, told: Permits) -> None:
    ada, bob = await new_actor(db, "ada"), await new_actor(db, "bob")
    (first, _), (second, _) = begin(told, ada), begin(told, bob)
    await suspend(db, bob.user_id)
    for actor in (ada, bob):
        await say(redis, actor.user_id)
    await soon(lambda: second.revoked)
    assert not first.revoked


async def test_without_a_word_all_are_looked_at_in_turn(db: Database, listener: Listener) -> None:
    ada, bob = await new_actor(db, "ada"), await new_actor(db, "bob")
    permits = Permits(db, listener, 0.01)
    (first, _), (second, _) = begin(permits, ada), begin(permits, bob)
    ended, _ = begin(permits, ada)
    ended.end()
    await suspend(db, ada.user_id)
    permits.start()
    await soon(lambda: first.revoked)
    await permits.close()
    assert not second.revoked
    assert not ended.revoked


async def test_a_database_that_is_away_takes_no_permit(listener: Listener, db: Database) -> None:
    nowhere = Database("postgresql://x:x@127.0.0.1:9/x", pool_size=1)
    permits = Permits(nowhere, listener)
    permit, nudges = begin(permits, await new_actor(db, "ada"))
    await cast(Any, permits)._check([permit])
    assert not permit.revoked
    assert nudges == []
    await nowhere.close()
