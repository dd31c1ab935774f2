"""A suspended user's running turn is stopped: at once, and also when nobody says a word."""

from collections.abc import AsyncGenerator

import pytest
from redis.asyncio import Redis

from chatd.people import People
from chatd.queue import Stops
from chatd.store.db import Database
from tests.store.test_suspending import refuse_changes
from tests.store.working import statuses, told
from tests.turn.bench import Bench
from tests.waiting import soon
from tests.workers.conftest import MakeRunner
from tests.workers.test_stops import ENDLESS, NEVER_S, become, begun, listening
from workers.sweep import Sweeper


@pytest.fixture
async def people(bench: Bench, redis: Redis) -> AsyncGenerator[People]:
    stops = Stops(redis)
    stops.start()
    yield People(bench.seed.db, redis, bench.deps.wakes, bench.deps.publisher, stops)
    await stops.close()


async def suspend(bench: Bench) -> None:
    await bench.seed.db.fetch(
        "UPDATE users SET suspended = true WHERE id = $1", bench.seed.actor.user_id
    )


async def test_a_running_turn_is_stopped_at_once_and_keeps_what_it_has_said(
    bench: Bench, make_runner: MakeRunner, redis: Redis, people: People
) -> None:
    runner = make_runner(renew_s=NEVER_S)
    chat_id = await begun(bench, runner)
    await bench.seed.send(chat_id, "/say next")
    async with listening(redis, runner.look):
        await suspend(bench)
        await people.stop(bench.seed.actor.user_id)
        await become(bench, chat_id, "interrupted", "cancelled")
    assert (await told(bench.seed, chat_id))[0] == ("user", ENDLESS)


async def test_a_family_that_cannot_be_ended_keeps_no_other_running(
    bench: Bench, people: People
) -> None:
    seed = bench.seed
    broken, other = await seed.chat_id(), await seed.chat_id()
    await refuse_changes(seed.db, broken)
    await suspend(bench)
    await people.stop(seed.actor.user_id)
    assert await statuses(seed, broken) == ["pending"]
    assert await statuses(seed, other) == ["interrupted"]


async def test_an_erased_users_turn_is_let_go(
    bench: Bench, make_runner: MakeRunner, redis: Redis, people: People
) -> None:
    runner = make_runner(renew_s=NEVER_S)
    await begun(bench, runner)
    async with listening(redis, runner.look):
        await people.erase(bench.seed.actor.user_id)
        await soon(lambda: runner.busy == 0)
    assert await bench.seed.db.fetch("SELECT 1 FROM turns") == []


async def test_the_sweeper_ends_what_came_in_after_the_suspension(
    bench: Bench, db: Database
) -> None:
    await suspend(bench)
    chat_id = await bench.seed.chat_id()
    await bench.seed.send(chat_id)
    sweeper = Sweeper(db, bench.deps.wakes, bench.deps.publisher, free=lambda: 0, wake=lambda: None)
    await sweeper.sweep()
    assert await statuses(bench.seed, chat_id) == ["interrupted", "cancelled"]
