"""The tool loop: where it begins again, and where it ends before the model does."""

import asyncio
from contextlib import aclosing

import pytest

from chatd.core.errors import TurnFailed
from chatd.core.messages import HistoryMessage
from chatd.core.tools import ToolCall, ToolResult
from chatd.core.work import PlannedCall
from chatd.loop import (
    STOP_REPEATABLE_AT,
    CallEnded,
    LoopEvent,
    OpenStep,
    Start,
    StepReady,
    StepStarted,
    Streamed,
    run_loop,
)
from tests.scripted_loop import TOOLS, Scripted, ask, kinds, results, run, say, three
from tests.seed import said

# --- limits


async def test_the_very_same_call_is_warned_of_and_then_stopped() -> None:
    seen: list[LoopEvent] = []
    model = Scripted(*[ask(("add", "1"), ("echo", "x" * n)) for n in range(9)])
    start = Start([HistoryMessage(role="user", content=said("go"))])
    events = run_loop(start, complete=model, call=three, tools=lambda: TOOLS)

    async def watch() -> None:
        async for event in events:
            seen.append(event)  # noqa: PERF401 - what came before the end is wanted

    with pytest.raises(TurnFailed) as failed:
        await watch()
    assert failed.value.error["kind"] == "step_limit"
    told = results(seen)
    assert len(told) == 4
    assert told[:2] == [["3", "3"]] * 2
    assert [("3 times" in told[2][0]), ("4 times" in told[3][0])] == [True, True]
    assert [answers[1] for answers in told] == ["3"] * 4
    assert isinstance(seen[-1], StepReady)  # its calls are committed, and must be closed


async def test_the_same_call_several_times_in_a_step_counts_once() -> None:
    model = Scripted(*[ask(*[("add", "1")] * 5) for _ in range(2)], say("ok"))
    assert results(await run(model)) == [["3"] * 5, ["3"] * 5]


async def test_calls_made_before_a_crash_count_too() -> None:
    start = Start([HistoryMessage(role="user", content=said("go"))], next_step=3)
    start.made.update({("add", "1"): 2})
    (answers,) = results(await run(Scripted(ask(("add", "1")), say("ok")), start=start))
    assert "3 times" in answers[0]


async def test_a_call_whose_answer_changes_may_be_made_often_but_not_for_ever() -> None:
    looks = [ask(("look", "1"))] * (STOP_REPEATABLE_AT - 1)
    assert results(await run(Scripted(*looks, say("ok")))) == [["3"]] * len(looks)
    with pytest.raises(TurnFailed):
        await run(Scripted(*looks, ask(("look", "1")), say("ok")))


async def test_a_turn_may_take_so_many_steps_and_no_more() -> None:
    calls = [ask(("add", f"{n}")) for n in range(5)]
    assert len(results(await run(Scripted(*calls[:4], say("ok")), max_steps=5))) == 4
    with pytest.raises(TurnFailed, match="5 steps"):
        await run(Scripted(*calls), max_steps=5)


# --- resuming


def planned(position: int, name: str = "add") -> PlannedCall:
    return PlannedCall(ToolCall(f"c{position}", name, "{}"), 2, position, TOOLS[name])


async def test_an_open_step_is_finished_before_the_model_is_asked() -> None:
    called: list[int] = []

    async def call(asked: PlannedCall) -> ToolResult:
        called.append(asked.position)
        return ToolResult("new")

    answered = [(planned(2), ToolResult("known"))]
    step = OpenStep(2, open=[planned(3), planned(1)], answered=answered)
    start = Start([HistoryMessage(role="user", content=said("go"))], next_step=3, open_step=step)
    model = Scripted(say("ok"))
    events = await run(model, call, start)
    assert sorted(called) == [1, 3]
    assert results(events) == [["new", "known", "new"]]
    assert [message["role"] for message in model.told[0]] == ["user", "tool", "tool", "tool"]
    (started,) = [event for event in events if isinstance(event, StepStarted)]
    assert started.step == 3


async def test_an_open_step_with_nothing_left_to_call_is_committed() -> None:
    step = OpenStep(2, open=[], answered=[(planned(1), ToolResult("known"))])
    start = Start([HistoryMessage(role="user", content=said("go"))], next_step=3, open_step=step)
    events = await run(Scripted(say("ok")), start=start)
    assert kinds(events)[:2] == ["ResultsReady", "StepStarted"]


# --- ending early


async def test_closing_during_the_answer_closes_the_models_stream() -> None:
    model = Scripted(say("a b c"))
    start = Start([HistoryMessage(role="user", content=said("go"))])
    events = run_loop(start, complete=model, call=three, tools=lambda: TOOLS)
    async for event in events:
        if isinstance(event, Streamed):
            break
    assert model.open == 1
    await events.aclose()
    assert model.open == 0


@pytest.mark.parametrize("way", ["closed", "cancelled"])
async def test_ending_during_the_calls_cancels_them(way: str) -> None:
    out: set[int] = set()
    everybody = asyncio.Event()

    async def call(asked: PlannedCall) -> ToolResult:
        if asked.position == 1:
            await everybody.wait()
            return ToolResult("quick")
        out.add(asked.position)
        if len(out) == 2:
            everybody.set()
        try:
            return await asyncio.Event().wait() and ToolResult("never")
        finally:
            out.discard(asked.position)

    start = Start([HistoryMessage(role="user", content=said("go"))])
    model = Scripted(ask(("add", "1"), ("add", "2"), ("add", "3")))
    events = run_loop(start, complete=model, call=call, tools=lambda: TOOLS)

    async def consume() -> None:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, CallEnded):
                    if way == "closed":
                        return
                    asyncio.get_running_loop().call_soon(task.cancel)

    task = asyncio.create_task(consume())
    await asyncio.wait({task})
    assert everybody.is_set()
    assert out == set()
