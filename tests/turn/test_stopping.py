"""Stopping a turn: by its user, by a worker that goes away, at any moment whatever."""

import asyncio
from collections.abc import Callable

import pytest

from chatd.core.chats import ChatPatch
from chatd.core.work import Claim
from chatd.store.editing import patch_chat
from chatd.turn.deps import Control
from chatd.turn.run import run_turn
from tests.seed import Seed
from tests.store.working import statuses
from tests.turn.bench import Bench, Running, at_once, call
from tests.waiting import locked, one, until


async def asked_to_stop(seed: Seed, claim: Claim) -> None:
    """Archiving is what stops a turn today."""
    await patch_chat(seed.db, seed.actor, claim.chat_id, ChatPatch(archived=True))
    await patch_chat(seed.db, seed.actor, claim.chat_id, ChatPatch(archived=False))


async def test_a_stopped_answer_keeps_what_was_said_and_the_queue_goes_on(bench: Bench) -> None:
    claim = await bench.claim("/long 10000 5")
    await bench.seed.send(claim.chat_id, "/say next")
    running = bench.start(claim)
    await until(lambda: bench.preview(claim))
    await asked_to_stop(bench.seed, claim)
    running.stop("interrupt")
    assert await running.task == "interrupted"
    part, promoted = await bench.told(claim)
    assert part.split() == [f"word{number}" for number in range(1, len(part.split()) + 1)]
    assert promoted == "/say next"
    assert await statuses(bench.seed, claim.chat_id) == ["interrupted", "pending"]


async def test_a_stop_before_the_first_word_keeps_no_message(bench: Bench) -> None:
    claim = await bench.claim("/hang 60")
    running = bench.start(claim)
    await asyncio.sleep(0)
    await asked_to_stop(bench.seed, claim)
    running.stop("interrupt")
    assert await running.task == "interrupted"
    assert await bench.told(claim) == []


async def test_a_stop_during_calls_keeps_those_that_were_answered(bench: Bench) -> None:
    claim = await bench.claim(at_once(call("add", a=1, b=2), call("slow", seconds=600)))
    running = bench.start(claim)
    await bench.until_state(claim, "done", "sent")
    await asked_to_stop(bench.seed, claim)
    running.stop("interrupt")
    assert await running.task == "interrupted"
    assert await bench.states(claim) == ["done", "unknown"]
    assert (await bench.told(claim))[-2] == "-> 3"
    await bench.complete(claim)


async def test_a_drained_turn_is_handed_back_and_nothing_of_it_is_kept(bench: Bench) -> None:
    claim = await bench.claim("/long 30 10")
    running = bench.start(claim)
    await until(lambda: bench.preview(claim))
    running.stop("drain")
    assert await running.task == "handed_back"
    assert await bench.told(claim) == []
    row = await one(bench.seed.db, "SELECT status, lost, attempt FROM turns")
    assert tuple(row) == ("pending", 0, 1)
    again = await bench.seed.claim()
    assert await run_turn(bench.deps, again, Control()) == "completed"
    assert len((await bench.told(claim))[0].split()) == 30


async def test_a_turn_drained_after_its_user_stopped_it_ends_interrupted(bench: Bench) -> None:
    claim = await bench.claim("/long 10000 5")
    running = bench.start(claim)
    await until(lambda: bench.preview(claim))
    await asked_to_stop(bench.seed, claim)
    running.stop("drain")
    assert await running.task == "interrupted"
    assert (await bench.told(claim))[0].startswith("word1 ")


async def test_a_turn_lost_while_it_speaks_writes_nothing(bench: Bench) -> None:
    claim = await bench.claim("/long 10000 5")
    running = bench.start(claim)
    await until(lambda: bench.preview(claim))
    running.stop("lost")
    assert await running.task == "lost"
    assert await bench.told(claim) == []
    assert (await bench.turn(claim))["status"] == "running"


@pytest.mark.parametrize("reason", ["interrupt", "drain"])
async def test_a_stop_while_the_step_is_being_committed_waits_for_it(
    bench: Bench, database_url: str, reason: str
) -> None:
    claim = await bench.claim(call("add", a=1, b=2), "/say three")
    async with locked(database_url, claim.chat_id) as holder:
        running = bench.start(claim)
        await holder.waiting()
        running.stop("interrupt" if reason == "interrupt" else "drain")
        await asyncio.sleep(0)
        assert not running.task.done()
    ended = await running.task
    assert (await bench.told(claim))[0] == 'demo__add({"a":1,"b":2})'
    if reason == "drain":
        assert ended == "handed_back"
        assert await run_turn(bench.deps, await bench.seed.claim(), Control()) == "completed"
        assert (await bench.told(claim))[1:] == ["-> 3", "three"]
    else:
        assert ended == "interrupted"
        assert await bench.states(claim) == ["cancelled"]
    await bench.complete(claim)


async def test_a_stop_while_the_end_is_being_committed_changes_nothing(
    bench: Bench, database_url: str
) -> None:
    claim = await bench.claim("/say done")
    async with locked(database_url, claim.chat_id) as holder:
        running = bench.start(claim)
        await holder.waiting()
        running.stop("drain")
    assert await running.task == "completed"
    assert await bench.told(claim) == ["done"]
    assert (await bench.turn(claim))["status"] == "completed"


async def ticks(number: int) -> None:
    """So many turns of the event loop."""
    for _ in range(number):
        await asyncio.sleep(0)


STEP = 11
"""Turns of the loop between two moments; the whole turn takes some hundred."""


async def stopped_at(bench: Bench, moment: int, reason: str) -> tuple[Running, str, str]:
    """A turn with calls that is stopped after so many turns of the loop."""
    mark = f"moment {moment} of {reason}"
    claim = await bench.claim(
        at_once(call("append", text=mark), call("add", a=1, b=2)), "/say three words only"
    )
    running = bench.start(claim)
    await ticks(1 + moment)
    if reason == "interrupt":
        await asked_to_stop(bench.seed, claim)
    running.stop("interrupt" if reason == "interrupt" else "drain")
    async with asyncio.timeout(20):
        return running, await running.task, mark


async def test_a_stop_at_any_moment_ends_the_turn_and_closes_its_calls(bench: Bench) -> None:
    ends: set[str] = set()
    moment = 0
    while "completed" not in ends:
        running, ended, _ = await stopped_at(bench, moment, "interrupt")
        turn = await bench.turn(running.claim)
        assert ended == turn["status"] in {"interrupted", "completed"}
        assert turn["error"] is None
        await bench.complete(running.claim)
        ends.add(ended)
        moment += STEP
    assert moment > 2 * STEP  # on a busy machine a turn of the loop finds more to do


async def test_a_drain_at_any_moment_repeats_no_call_that_may_not_be(
    bench: Bench, appended: Callable[[str], int]
) -> None:
    ended = ""
    moment = 0
    while ended != "completed":
        running, ended, mark = await stopped_at(bench, moment, "drain")
        if ended == "handed_back":
            again = await bench.seed.claim()
            assert await run_turn(bench.deps, again, Control()) == "completed"
        await bench.complete(running.claim)
        assert (await bench.told(running.claim))[-1] == "three words only"
        states = await bench.states(running.claim)
        lines = appended(mark)
        assert lines == 1 or (lines == 0 and states[0] == "unknown")
        assert states[1] == "done"  # it is safe: called again if need be
        moment += 3 * STEP
    assert moment > 5 * STEP
