"""Many turns at once: those in flight do not delay the next one."""

import asyncio
from datetime import datetime

from chatd.store.db import Database
from tests.e2e.client import Client, call, spoken
from tests.e2e.fleet import Fleet
from tests.e2e.journal import turn_row
from tests.e2e.view import text_of
from tests.waiting import one, until

AT_ONCE_S = 1.0
"""It is a few milliseconds on an idle machine; a poll, or a full worker, would take longer."""

RUNNING = "SELECT count(*) AS turns FROM turns WHERE status = 'running'"


async def test_a_hundred_long_turns_do_not_delay_the_next_one(
    crew: Fleet, db: Database, member: Client
) -> None:
    await crew.worker(capacity=150)
    turns = await asyncio.gather(*(member.create("/long 100 50") for _ in range(100)))

    async def all_run() -> bool:
        return (await one(db, RUNNING))["turns"] == len(turns)

    await until(all_run)
    turn, messages = await member.run("/say at once")
    assert (await one(db, RUNNING))["turns"] > 0
    assert _waited_s(turn) < AT_ONCE_S
    assert text_of(messages[-1]) == "at once"
    for posted in turns:
        turn = await member.ended(posted)
        assert (turn["status"], turn["attempt"]) == ("completed", 1)
    _, answer = await member.messages(turns[-1])
    assert text_of(answer) == spoken(100)


async def test_a_full_worker_leaves_turns_to_others(
    crew: Fleet, db: Database, member: Client
) -> None:
    full, _ = await asyncio.gather(crew.worker(capacity=1), crew.worker(capacity=1))
    first = await member.create(call("demo__slow", seconds=1.5))
    second = await member.create(call("demo__slow", seconds=1.5))
    third = await member.create("/say after one of them")
    turns = [await member.ended(posted) for posted in (first, second, third)]
    assert _waited_s(turns[1]) < AT_ONCE_S
    workers = [(await turn_row(db, posted))["worker_id"] for posted in (first, second, third)]
    assert workers[0] != workers[1]
    assert min(turn["finished_at"] for turn in turns[:2]) <= turns[2]["started_at"]
    assert full.child.running


def _waited_s(turn: dict[str, str]) -> float:
    started, queued = (datetime.fromisoformat(turn[at]) for at in ("started_at", "queued_at"))
    return (started - queued).total_seconds()
