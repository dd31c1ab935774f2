"""A stop reaches the worker that has the turn, at once; and it survives Redis being away."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Set
from contextlib import asynccontextmanager, suppress
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from chatd.commands import Commands
from chatd.core.chats import NewTurn
from chatd.dev.valkey import Valkey
from chatd.queue import STOPS, Stops
from chatd.store.sweeping import expire_turn
from tests.seed import said
from tests.store.working import statuses
from tests.turn.bench import Bench, call
from tests.waiting import soon, until
from tests.workers.conftest import MakeRunner
from workers.runner import Runner
from workers.stops import StopListener

ENDLESS = "/long 100000 20"


NEVER_S = 3600.0
"""Leases are not renewed here: what a test sees was pushed, nobody would find it out otherwise."""


@asynccontextmanager
async def listening(
    redis: Redis, look: Callable[[Set[UUID] | None], Awaitable[None]]
) -> AsyncGenerator[None]:
    """A listener that has subscribed, and looked at what it had missed before."""
    looked = asyncio.Event()

    async def look_and_tell(turns: Set[UUID] | None) -> None:
        await look(turns)
        looked.set()

    task = asyncio.create_task(StopListener(redis, look_and_tell).run())
    await subscribed(redis)
    await looked.wait()
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def subscribed(redis: Redis) -> None:
    async def heard() -> bool:
        return dict(await cast(Any, redis).pubsub_numsub(STOPS))[STOPS.encode()] == 1

    await until(heard)


@pytest.fixture
async def stops(redis: Redis) -> AsyncGenerator[Stops]:
    made = Stops(redis)
    made.start()
    yield made
    await made.close()


def commands(bench: Bench, stops: Stops) -> Commands:
    return Commands(bench.seed.db, bench.deps.wakes, bench.deps.publisher, stops)


async def begun(bench: Bench, runner: Runner, script: str = ENDLESS) -> UUID:
    """A chat whose turn this runner has in hand, with a part of its answer out."""
    chat_id = await bench.seed.chat_id(script)
    runner.wake()

    async def running() -> bool:
        return await statuses(bench.seed, chat_id) == ["running"]

    await until(running)
    return chat_id


async def become(bench: Bench, chat_id: UUID, *wanted: str) -> None:
    async def check() -> bool:
        return await statuses(bench.seed, chat_id) == list(wanted)

    await until(check)


async def test_a_stop_reaches_the_worker_and_the_queue_goes_on(
    bench: Bench, make_runner: MakeRunner, redis: Redis, stops: Stops
) -> None:
    idle, runner = make_runner(renew_s=NEVER_S), make_runner(renew_s=NEVER_S)
    chat_id = await begun(bench, runner)
    await bench.seed.send(chat_id, "/say next")
    async with listening(redis, runner.look), listening_too(redis, idle):
        await commands(bench, stops).interrupt(bench.seed.actor, chat_id)
        await become(bench, chat_id, "interrupted", "completed")


@asynccontextmanager
async def listening_too(redis: Redis, runner: Runner) -> AsyncGenerator[None]:
    """Another worker of the fleet, which has nothing to stop."""
    task = asyncio.create_task(StopListener(redis, runner.look).run())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_stop_reaches_a_call_that_is_out(
    bench: Bench, make_runner: MakeRunner, redis: Redis, stops: Stops
) -> None:
    runner = make_runner(renew_s=NEVER_S)
    chat_id = await begun(bench, runner, call("slow", seconds=50))
    rows = "SELECT state FROM tool_calls"

    async def out() -> bool:
        return [row["state"] for row in await bench.seed.db.fetch(rows)] == ["sent"]

    await until(out)
    async with listening(redis, runner.look):
        await commands(bench, stops).interrupt(bench.seed.actor, chat_id)
        await become(bench, chat_id, "interrupted")
    assert [row["state"] for row in await bench.seed.db.fetch(rows)] == ["unknown"]


async def test_an_edit_takes_the_turn_from_its_worker_at_once(
    bench: Bench, make_runner: MakeRunner, redis: Redis, stops: Stops
) -> None:
    runner = make_runner(capacity=1, renew_s=NEVER_S)
    chat_id = await begun(bench, runner)
    message = await bench.seed.db.fetch("SELECT id FROM chat_messages")
    async with listening(redis, runner.look):
        await commands(bench, stops).edit_message(
            bench.seed.actor, chat_id, message[0]["id"], NewTurn(said("/say instead"))
        )
        # It has room for one turn: the new one runs when the old one is let go.
        await become(bench, chat_id, "superseded", "completed")


async def test_deleting_a_chat_stops_its_turn(
    bench: Bench, make_runner: MakeRunner, redis: Redis, stops: Stops
) -> None:
    runner = make_runner(renew_s=NEVER_S)
    chat_id = await begun(bench, runner)
    async with listening(redis, runner.look):
        await commands(bench, stops).delete_chat(bench.seed.actor, chat_id)
        await soon(lambda: runner.busy == 0)


async def test_only_what_was_stopped_is_stopped(bench: Bench, make_runner: MakeRunner) -> None:
    runner = make_runner(renew_s=NEVER_S)
    await begun(bench, runner)
    await runner.look({uuid4()})
    await runner.look(None)
    await runner.look(set())
    assert runner.busy == 1


async def test_a_worker_that_missed_a_stop_looks_when_it_is_back(
    bench: Bench, make_runner: MakeRunner, redis: Redis, valkey: Valkey, stops: Stops
) -> None:
    runner = make_runner(renew_s=NEVER_S)
    chat_id = await begun(bench, runner)
    async with listening(redis, runner.look):
        valkey.kill()
        await commands(bench, stops).interrupt(bench.seed.actor, chat_id)
        assert await statuses(bench.seed, chat_id) == ["interrupting"]
        await valkey.restart()
        await become(bench, chat_id, "interrupted")


async def test_a_turn_that_another_worker_has_is_let_go(
    bench: Bench, make_runner: MakeRunner
) -> None:
    runner = make_runner(renew_s=NEVER_S)
    await begun(bench, runner)
    (row,) = await bench.seed.db.fetch("SELECT id, chat_id FROM turns")
    await bench.seed.db.fetch("UPDATE turns SET lease_expires_at = clock_timestamp()")
    assert await expire_turn(bench.seed.db, row["id"], row["chat_id"])
    await bench.seed.claim()
    await runner.look({row["id"]})
    await soon(lambda: runner.busy == 0)


async def test_what_no_worker_can_read_is_passed_over(redis: Redis) -> None:
    looked: list[Set[UUID] | None] = []

    async def look(turns: Set[UUID] | None) -> None:
        looked.append(turns)

    async with listening(redis, look):
        for payload in (b"nonsense", b"7", b"[7]", b'["x"]'):
            await cast(Any, redis).publish(STOPS, payload)
        turn = uuid4()
        await cast(Any, redis).publish(STOPS, f'["{turn}"]')
        await soon(lambda: looked[-1:] == [{turn}])
    assert looked == [None, {turn}]
