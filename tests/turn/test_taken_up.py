"""A turn that another worker left half done, and that cannot go on either."""

from chatd.core.tools import ToolResult
from chatd.core.work import Claim
from chatd.turn.resume import resume
from tests.store.working import commit_calls, journal, lose
from tests.turn.bench import Bench
from tests.turn.test_stopping import asked_to_stop
from tests.waiting import transaction


async def left_behind(bench: Bench) -> Claim:
    """A claim whose worker was lost after it had sent the first of two calls."""
    claim = await bench.claim("/say hi")
    await commit_calls(bench.seed, claim)
    await bench.seed.db.fetch("UPDATE tool_calls SET state = 'sent' WHERE position = 1")
    return claim


async def test_without_its_model_the_open_calls_are_answered_all_the_same(bench: Bench) -> None:
    claim = await left_behind(bench)
    await bench.seed.db.fetch("UPDATE model_configs SET enabled = false")
    await bench.again(claim)
    turn = await bench.turn(claim)
    assert (turn["status"], turn["error"]["kind"]) == ("failed", "provider_disabled")
    assert [m["role"] for m in await bench.messages(claim)] == ["user", "assistant", "tool", "tool"]
    assert await journal(bench.seed, claim) == [(1, "unknown"), (2, "cancelled")]


async def test_what_was_known_of_a_call_is_told_as_it_was(bench: Bench) -> None:
    claim = await left_behind(bench)
    await bench.seed.db.fetch(
        "UPDATE tool_calls SET state = 'unknown', result = $1::json WHERE position = 1",
        '{"result": "no answer within 60 s", "is_error": true}',
    )
    await lose(bench.seed, claim)
    loaded = await bench.deps.loader.load(await bench.seed.claim())
    open_step = resume(loaded, {}).open_step
    assert open_step is not None
    ((_, result),) = open_step.answered
    assert result == ToolResult("no answer within 60 s", is_error=True, outcome="unknown")


async def test_stopped_while_it_is_read_its_open_calls_are_answered_all_the_same(
    bench: Bench, database_url: str
) -> None:
    claim = await left_behind(bench)
    await lose(bench.seed, claim)
    again = await bench.seed.claim()
    async with transaction(database_url) as holder:
        await holder.execute("LOCK TABLE deployment_settings")
        running = bench.start(again)
        await holder.waiting()  # the turn is being read
        await asked_to_stop(bench.seed, again)
        running.stop("interrupt")
    assert await running.task == "interrupted"
    await bench.complete(claim)
    assert await journal(bench.seed, claim) == [(1, "unknown"), (2, "cancelled")]
