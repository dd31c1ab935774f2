"""A worker is told to stop in the middle of its work: nothing is lost and nothing done twice."""

import asyncio
import signal
from collections.abc import Sequence

from chatd.store.db import Database
from tests.e2e.client import Client, Posted, call, spoken
from tests.e2e.fleet import Fleet, Process
from tests.e2e.journal import turn_row
from tests.e2e.view import text_of
from tests.waiting import until

SHORT, LONG = 75, 300
"""Words of an answer, 20 ms apart: some end within the grace time and some do not."""

GRACE_S = 2


async def test_a_worker_that_is_told_to_stop_hands_back_what_it_cannot_finish(
    crew: Fleet, db: Database, member: Client
) -> None:
    leaving, _ = await asyncio.gather(
        crew.worker(CHATD_DRAIN_GRACE_SECONDS=str(GRACE_S)), crew.worker()
    )
    lengths = [LONG, SHORT] * 8
    answers = [await member.create(f"/long {words} 20") for words in lengths]
    naps = [1, 6, 1, 6]
    sleepers = [
        await member.create(call("demo__slow", seconds=seconds), "/echo") for seconds in naps
    ]
    took_long = await _held_by(leaving, db, [*answers[::2], *sleepers[1::2]])
    leaving.child.send_signal(signal.SIGTERM)
    during = await member.create("/say posted while one was leaving")

    async with asyncio.timeout(GRACE_S + 8):
        assert await leaving.child.wait() == 0
    assert len(leaving.lines("worker stopped")) == 1
    assert [line["status"] for line in leaving.lines("turn ended")].count("handed_back") == (
        len(took_long)
    )
    for posted, words in zip(answers, lengths, strict=True):
        await _completed(db, member, posted, attempts=2 if posted in took_long else 1)
        _, answer = await member.messages(posted)
        assert text_of(answer) == spoken(words)
    for posted, seconds in zip(sleepers, naps, strict=True):
        await _completed(db, member, posted, attempts=2 if posted in took_long else 1)
        _, _, result, answer = await member.messages(posted)
        assert text_of(result) == text_of(answer) == f"took {seconds} seconds"
    await _completed(db, member, during, attempts=1)


async def _held_by(worker: Process, db: Database, turns: Sequence[Posted]) -> list[Posted]:
    """Those of the turns that this worker has in hand, once they are all running."""

    async def running() -> bool:
        rows = [await turn_row(db, posted) for posted in turns]
        return all(row["status"] == "running" for row in rows)

    await until(running)
    held = [
        posted
        for posted in turns
        if f":{worker.child.pid}:" in (await turn_row(db, posted))["worker_id"]
    ]
    assert held, "the other worker took them all"
    return held


async def _completed(db: Database, member: Client, posted: Posted, *, attempts: int) -> None:
    turn = await member.ended(posted)
    assert (turn["status"], turn["error"], turn["attempt"]) == ("completed", None, attempts)
    assert (await turn_row(db, posted))["lost"] == 0
