"""Model calls whose answer did not become a message, or whose provider told no usage."""

import asyncio
from dataclasses import replace

from chatd.store.db import Database
from chatd.turn.deps import Control
from chatd.turn.run import run_turn
from tests.relay import relay_to
from tests.spent import kinds, ledger, priced
from tests.store.working import lose
from tests.turn.bench import Bench
from tests.turn.test_stopping import asked_to_stop
from tests.waiting import locked, transaction, until


async def test_an_attempt_that_broke_off_is_a_lost_line(bench: Bench) -> None:
    await priced(bench.seed)
    claim = await bench.run("/drop 40", "/say hello there")
    assert await bench.told(claim) == ["hello there"]
    lines = {row["kind"]: row for row in await ledger(bench.seed.db, claim.chat_id)}
    lost, step = lines["lost"], lines["step"]
    assert (lost["estimated"], step["estimated"]) == (True, False)
    assert lost["output_tokens"] == -(-len("".join(f"word{n} " for n in range(1, 41))) // 4)
    assert lost["input_tokens"] > 0
    assert lost["cost_micros"] == 2 * lost["input_tokens"] + 10 * lost["output_tokens"]


async def test_an_attempt_that_was_refused_costs_nothing(bench: Bench) -> None:
    claim = await bench.run("/fail 503 1 0", "/say hello")
    assert await kinds(bench.seed.db, claim.chat_id) == ["step"]


async def test_a_stopped_answer_is_estimated_since_nobody_told_its_usage(bench: Bench) -> None:
    claim = await bench.claim("/long 10000 5")
    running = bench.start(claim)
    await until(lambda: bench.preview(claim))
    await asked_to_stop(bench.seed, claim)
    running.stop("interrupt")
    assert await running.task == "interrupted"
    (line,) = await ledger(bench.seed.db, claim.chat_id)
    (said,) = await bench.told(claim)
    assert (line["kind"], line["estimated"]) == ("step", True)
    assert line["output_tokens"] == -(-len(said) // 4)


async def test_an_answer_given_back_at_a_drain_is_lost(bench: Bench) -> None:
    claim = await bench.claim("/long 10000 5")
    running = bench.start(claim)
    await until(lambda: bench.preview(claim))
    running.stop("drain")
    assert await running.task == "handed_back"
    (line,) = await ledger(bench.seed.db, claim.chat_id)
    assert (line["kind"], line["turn_id"]) == ("lost", claim.turn_id)


async def test_a_call_is_lost_once_though_sweeper_and_worker_both_know(bench: Bench) -> None:
    claim = await bench.claim("/long 10000 5")
    running = bench.start(claim)
    await until(lambda: bench.preview(claim))
    await lose(bench.seed, claim)
    running.stop("lost")
    assert await running.task == "lost"
    assert await kinds(bench.seed.db, claim.chat_id) == ["lost"]


async def test_a_turn_taken_from_its_worker_leaves_its_half_answer_in_the_ledger(
    bench: Bench,
) -> None:
    claim = await bench.claim("/long 10000 5")
    running = bench.start(claim)
    await until(lambda: bench.preview(claim))
    running.stop("lost")
    assert await running.task == "lost"
    (line,) = await ledger(bench.seed.db, claim.chat_id)
    assert (line["kind"], line["estimated"]) == ("lost", True)


async def test_an_end_that_landed_unheard_is_counted_once(bench: Bench, database_url: str) -> None:
    claim = await bench.claim("/hang 0.3", "/say hello")
    async with relay_to(database_url) as (relay, url):
        far = Database(url, pool_size=1)
        running = asyncio.create_task(run_turn(replace(bench.deps, db=far), claim, Control()))
        async with locked(database_url, claim.chat_id) as holder:
            await holder.waiting()  # the end is being written
            relay.lose_next_answer()
        assert await running == "lost"
        await far.close()
    assert (await bench.turn(claim))["status"] == "completed"
    assert await kinds(bench.seed.db, claim.chat_id) == ["step"]


async def test_a_stop_that_comes_when_the_turn_is_over_leaves_its_lost_calls_counted(
    bench: Bench, database_url: str
) -> None:
    await bench.seed.db.fetch(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END'"
    )
    await bench.seed.db.fetch(
        "CREATE TRIGGER wait BEFORE INSERT ON usage_entries FOR EACH ROW"
        " WHEN (NEW.kind = 'lost') EXECUTE FUNCTION wait()"
    )
    claim = await bench.claim("/drop 40", "/say hello there")
    async with transaction(database_url) as holder:
        await holder.execute("SELECT pg_advisory_xact_lock(1)")
        running = bench.start(claim)
        await holder.waiting()
        running.stop("lost")
    assert await running.task == "completed"
    assert sorted(await kinds(bench.seed.db, claim.chat_id)) == ["lost", "step"]
