"""A connection that breaks at COMMIT: what was written is written once."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from chatd.core.errors import (
    LeaseLost,
    Unavailable,
)
from chatd.core.work import Claim
from chatd.store import work
from chatd.store.chats import list_messages
from chatd.store.db import Database, load
from tests.relay import relay_to
from tests.seed import Seed, answer
from tests.store.working import NOTICE, commit_calls, finish, journal, outcome, result, told
from tests.waiting import locked, one

Write = Callable[[Claim], Awaitable[object]]


@pytest.fixture
async def written_once(seed: Seed) -> Callable[[Claim], Awaitable[None]]:
    async def check(claim: Claim) -> None:
        assert await told(seed, claim.chat_id) == [("user", "hello"), ("assistant", "let me see")]
        assert await journal(seed, claim) == [(1, "intended"), (2, "intended")]
        turn = await one(seed.db, "SELECT commits, notices FROM turns WHERE id = $1", claim.turn_id)
        assert (turn["commits"], load(turn["notices"])) == (1, [NOTICE])

    return check


async def test_a_commit_whose_answer_was_lost_is_not_written_twice(
    seed: Seed, database_url: str, written_once: Write
) -> None:
    claim, other = await seed.claimed(), await seed.claimed()
    async with relay_to(database_url) as (relay, url):
        db = Database(url, pool_size=1)
        far = Seed(db, seed.actor, seed.model_id)
        await commit_calls(far, other)  # so that the statement is prepared
        relay.lose_next_answer()
        committed = await commit_calls(far, claim)
        await db.close()
    await written_once(claim)
    stored = await list_messages(seed.db, seed.actor.user_id, claim.chat_id)
    assert committed.version == 3
    assert committed.commits == 1
    assert [row[0] for row in committed.messages] == [stored["messages"][0]["id"]]


async def test_a_commit_whose_session_was_terminated_is_written_again(
    seed: Seed, database_url: str, written_once: Write
) -> None:
    claim = await seed.claimed()
    async with locked(database_url, claim.chat_id) as holder:
        committing = asyncio.create_task(commit_calls(seed, claim))
        (session,) = await holder.waiting()
        await holder.execute("SELECT pg_terminate_backend($1)", session)
    assert (await committing).commits == 1
    await written_once(claim)


async def test_a_commit_that_outlives_its_connection_is_not_written_twice(
    seed: Seed, database_url: str, written_once: Write
) -> None:
    claim = await seed.claimed()
    async with relay_to(database_url) as (relay, url):
        db = Database(url, pool_size=1)
        async with locked(database_url, claim.chat_id) as holder:
            far = Seed(db, seed.actor, seed.model_id)
            committing = asyncio.create_task(commit_calls(far, claim))
            await holder.waiting()
            relay.cut()
            await holder.waiting(2)  # the first session is still there, and its second try
        assert (await committing).commits == 1
        await db.close()
    await written_once(claim)


async def test_results_whose_answer_was_lost_are_not_written_twice(
    seed: Seed, database_url: str
) -> None:
    claim, other = await seed.claimed(), await seed.claimed()
    messages, outcomes = [result(1), result(2)], [outcome(1), outcome(2)]
    async with relay_to(database_url) as (relay, url):
        db = Database(url, pool_size=1)
        for ours in (other, claim):
            await commit_calls(seed, ours)
            committed = await work.commit_results(db, ours, messages, outcomes, [])
            if ours is other:
                relay.lose_next_answer()
        await db.close()
    assert len(committed.messages) == 2
    assert len(await told(seed, claim.chat_id)) == 4


async def test_an_end_whose_answer_was_lost_has_happened_once(
    seed: Seed, database_url: str
) -> None:
    claim, other = await seed.claimed(), await seed.claimed()
    await seed.send(claim.chat_id, "next")
    async with relay_to(database_url) as (relay, url):
        db = Database(url, pool_size=1)
        far = Seed(db, seed.actor, seed.model_id)
        await finish(far, other)
        relay.lose_next_answer()
        with pytest.raises(LeaseLost):
            await finish(far, claim, answer("done"))
        await db.close()
    assert await told(seed, claim.chat_id) == [
        ("user", "hello"),
        ("assistant", "done"),
        ("user", "next"),
    ]


async def test_an_argument_that_cannot_be_sent_is_no_outage(seed: Seed) -> None:
    with pytest.raises(asyncpg.DataError, match="int64"):
        await seed.db.fetch("SELECT $1::bigint", 2**70)
    with pytest.raises(Unavailable):
        await Database("postgresql://x:x@127.0.0.1:9/x").fetch("SELECT 1")
