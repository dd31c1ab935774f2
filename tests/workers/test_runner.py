"""Turns in hand: how many, whose, and when they are let go."""

import asyncio

import pytest
from redis.asyncio import Redis

from chatd.store.db import Database
from chatd.store.ids import new_id
from chatd.telemetry import REGISTRY
from tests.relay import relay_to
from tests.seed import Seed
from tests.turn.bench import Bench
from tests.turning import turn_deps
from tests.waiting import locked, one, soon, until
from tests.workers.conftest import MakeRunner
from workers.runner import Runner


async def chats(bench: Bench, number: int, script: str) -> None:
    for _ in range(number):
        await bench.seed.chat(script)


async def counted(bench: Bench) -> dict[str, int]:
    """Turns by status."""
    rows = await bench.seed.db.fetch("SELECT status, count(*) AS n FROM turns GROUP BY 1")
    return {row["status"]: row["n"] for row in rows}


async def reached(bench: Bench, **wanted: int) -> None:
    async def check() -> bool:
        return await counted(bench) == wanted

    await until(check)


async def test_no_more_turns_run_than_there_is_room_for(
    bench: Bench, make_runner: MakeRunner
) -> None:
    await chats(bench, 5, "/long 20 10")
    runner = make_runner(capacity=2)
    runner.wake()
    await soon(lambda: runner.busy == 2)
    assert runner.free == 0
    room = asyncio.create_task(runner.room())
    await reached(bench, completed=5)  # whoever ends makes room for the next, without a wake
    await room
    overlapping = await one(
        bench.seed.db,
        """SELECT max(n) FROM (SELECT count(*) AS n FROM turns a JOIN turns b
            ON b.started_at <= a.started_at AND b.finished_at > a.started_at GROUP BY a.id) AS x""",
    )
    assert overlapping[0] == 2


async def test_waking_twice_runs_nothing_twice(bench: Bench, make_runner: MakeRunner) -> None:
    await chats(bench, 12, "/say hello")
    runners = [make_runner(capacity=3) for _ in range(2)]
    for runner in runners * 3:
        runner.wake()
    await reached(bench, completed=12)
    rows = await bench.seed.db.fetch("SELECT DISTINCT attempt FROM turns")
    assert [row["attempt"] for row in rows] == [1]
    assert (await one(bench.seed.db, "SELECT count(*) FROM chat_messages"))[0] == 24


async def test_waking_for_nothing_is_harmless(bench: Bench, make_runner: MakeRunner) -> None:
    runner = make_runner()
    for _ in range(3):
        runner.wake()
        await asyncio.sleep(0)
    await chats(bench, 1, "/say hello")
    runner.wake()
    await reached(bench, completed=1)


def looked() -> float:
    """How often anybody claimed, whatever came of it."""
    labels = {"stage": "acquisition"}
    return REGISTRY.get_sample_value("chatd_stage_duration_seconds_count", labels) or 0


@pytest.mark.parametrize(("capacity", "per_owner"), [(1, 0), (10, 1)], ids=["full", "limited"])
async def test_a_turn_that_comes_while_another_ends_is_not_forgotten(
    bench: Bench, make_runner: MakeRunner, database_url: str, capacity: int, per_owner: int
) -> None:
    """Its wake finds no room, and the ending one has looked for others before it was there."""
    chat_id = await bench.seed.chat_id("/long 5 20")
    runner, before = make_runner(capacity=capacity, per_owner=per_owner), looked()
    runner.wake()
    await reached(bench, running=1)
    async with locked(database_url, chat_id) as holder:
        await holder.waiting()
        await chats(bench, 1, "/say hello")
        runner.wake()
        await soon(lambda: looked() - before == 2 or runner.free == 0)
    await reached(bench, completed=2)


async def test_who_leaves_nothing_pending_does_not_look_for_more(
    bench: Bench, make_runner: MakeRunner
) -> None:
    runner, before = make_runner(), looked()
    for number in range(1, 4):
        await chats(bench, 1, "/say hello")
        runner.wake()
        await reached(bench, completed=number)
        await soon(lambda: runner.busy == 0)
    assert looked() - before == 3


async def test_a_finished_turn_starts_the_one_it_promoted(
    bench: Bench, make_runner: MakeRunner
) -> None:
    chat_id = await bench.seed.chat_id("/long 5 5")
    for number in range(3):
        await bench.seed.send(chat_id, f"/say {number}")
    make_runner(capacity=1).wake()
    await reached(bench, completed=4)


async def test_what_the_renewal_finds_is_done(bench: Bench, make_runner: MakeRunner) -> None:
    """Three turns at once, since a renewal is three seconds away: stopped, stolen and held."""
    await chats(bench, 3, "/long 100000 20")
    runner = make_runner()
    runner.wake()
    await reached(bench, running=3)
    rows = await bench.seed.db.fetch("SELECT id, chat_id, lease_expires_at FROM turns ORDER BY id")
    stopped, stolen, held = rows
    await bench.seed.db.fetch(
        "UPDATE turns SET status = 'interrupting' WHERE id = $1", stopped["id"]
    )
    # In one statement: between an expiry and a claim the runner itself might claim it again.
    thief = new_id()
    await bench.seed.db.fetch(
        "UPDATE turns SET lease_id = $2, worker_id = 'thief', attempt = attempt + 1 WHERE id = $1",
        stolen["id"],
        thief,
    )
    await soon(lambda: runner.busy == 1)
    await reached(bench, interrupted=1, running=2)
    kept = await bench.seed.db.fetch("SELECT turn_id FROM chat_messages WHERE role = 'assistant'")
    assert [row["turn_id"] for row in kept] == [stopped["id"]]
    lease = "SELECT lease_id, lease_expires_at FROM turns WHERE id = $1"
    assert (await one(bench.seed.db, lease, held["id"]))["lease_expires_at"] > held[
        "lease_expires_at"
    ]
    assert (await one(bench.seed.db, lease, stolen["id"]))["lease_id"] == thief


async def test_draining_lets_end_what_can_and_hands_back_the_rest(
    bench: Bench, make_runner: MakeRunner
) -> None:
    await chats(bench, 1, "/long 30 10")
    await chats(bench, 2, "/long 100000 20")
    runner = make_runner()
    runner.wake()
    await reached(bench, running=3)
    await chats(bench, 1, "/say nobody is left to run me")
    draining = asyncio.create_task(runner.drain(1))
    await soon(lambda: runner.free == 0)
    runner.wake()
    await draining
    assert runner.busy == 0
    assert await counted(bench) == {"completed": 1, "pending": 3}
    rows = await bench.seed.db.fetch("SELECT lost, attempt FROM turns ORDER BY attempt")
    assert [tuple(row) for row in rows] == [(0, 0), (0, 1), (0, 1), (0, 1)]
    successor = make_runner()
    successor.wake()
    await reached(bench, completed=2, running=2)


async def test_claiming_goes_on_after_an_outage(
    bench: Bench, redis: Redis, database_url: str
) -> None:
    async with relay_to(database_url) as (relay, url):
        db, renewals = Database(url, pool_size=2), Database(url, pool_size=1)
        async with turn_deps(db, redis) as deps:
            runner = Runner(deps, renewals, worker_id="w", capacity=2)
            runner.start()
            relay.refuse()
            await Seed(bench.seed.db, bench.seed.actor, bench.seed.model_id).chat("/say hello")
            runner.wake()
            await soon(lambda: relay.refused)
            relay.accept()
            await reached(bench, completed=1)
            await runner.drain(5)
            await runner.close()
        await db.close()
        await renewals.close()
