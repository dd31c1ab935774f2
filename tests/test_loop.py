"""The tool loop: steps, calls side by side, retries."""

import asyncio

import pytest

from chatd.core.deltas import Delta, Finished, Retrying, TextDelta, ToolCallDelta
from chatd.core.errors import turn_error
from chatd.core.messages import HistoryMessage
from chatd.core.tools import OfferedTool, ToolResult
from chatd.core.work import PlannedCall
from chatd.loop import (
    CallEnded,
    Start,
    StepReady,
    StepStarted,
    Streamed,
    run_loop,
)
from tests.scripted_loop import TOOLS, Scripted, ask, kinds, results, run, say, three
from tests.seed import said

# --- steps


async def test_an_answer_without_calls_is_one_step() -> None:
    model = Scripted(say("hello there"))
    events = await run(model)
    assert kinds(events) == ["StepStarted", "Streamed", "Streamed", "Streamed", "StepReady"]
    ready = events[-1]
    assert isinstance(ready, StepReady)
    assert (ready.step, ready.calls) == (1, [])
    assert ready.answer.parts() == said("hellothere")
    assert ready.answer.reason == "stop"


async def test_results_are_told_to_the_model_in_the_next_step() -> None:
    model = Scripted(ask(("add", '{"a":1}')), say("three"))
    events = await run(model)
    assert kinds(events) == [
        "StepStarted", "Streamed", "Streamed", "StepReady", "CallEnded", "ResultsReady",
        "StepStarted", "Streamed", "Streamed", "StepReady",
    ]  # fmt: skip
    _, assistant, answer = model.told[1]
    assert assistant["role"] == "assistant"
    assert assistant["content"] == [
        {"type": "tool-call", "tool_call_id": "c0", "tool_name": "add", "args": '{"a":1}'}
    ]
    assert (answer["role"], answer["content"][0]) == (
        "tool",
        {
            "type": "tool-result",
            "tool_call_id": "c0",
            "tool_name": "add",
            "result": "3",
            "is_error": False,
        },
    )


async def test_a_tool_that_was_not_offered_is_planned_without_one() -> None:
    planned: list[PlannedCall] = []

    async def call(asked: PlannedCall) -> ToolResult:
        planned.append(asked)
        return ToolResult("there is no such tool", is_error=True)

    await run(Scripted(ask(("nothing", "{}"), ("add", "not json")), say("ok")), call)
    assert [asked.tool for asked in planned] == [None, TOOLS["add"]]
    assert planned[1].call.arguments == "not json"


async def test_the_offer_is_asked_again_for_every_step() -> None:
    offers = iter([{"add": TOOLS["add"]}, dict[str, OfferedTool](), dict[str, OfferedTool]()])
    model = Scripted(ask(("add", "1")), ask(("add", "2")), say("ok"))
    start = Start([HistoryMessage(role="user", content=said("go"))])
    events = run_loop(start, complete=model, call=three, tools=lambda: next(offers))
    planned = [
        event.calls[0].tool
        async for event in events
        if isinstance(event, StepReady) and event.calls
    ]
    assert planned == [TOOLS["add"], None]


# --- calls


async def test_parallel_calls_overlap_and_are_answered_in_call_order() -> None:
    out: list[int] = []
    everybody = asyncio.Event()

    async def call(planned: PlannedCall) -> ToolResult:
        out.append(planned.position)
        if len(out) == 3:
            everybody.set()
        await everybody.wait()
        for _ in range(3 - planned.position):
            await asyncio.sleep(0)  # the first to be called is the last to answer
        return ToolResult(f"{planned.position}")

    events = await run(Scripted(ask(*[("add", f"{n}") for n in range(3)]), say("ok")), call)
    ended = [event for event in events if isinstance(event, CallEnded)]
    assert [event.last for event in ended] == [False, False, True]
    assert ended[-1].planned.position == 1
    assert results(events) == [["1", "2", "3"]]


async def test_one_tool_that_must_run_alone_makes_its_step_sequential() -> None:
    running = most = 0
    order: list[int] = []

    async def call(planned: PlannedCall) -> ToolResult:
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(planned.position)
        await asyncio.sleep(0)
        running -= 1
        return ToolResult("x")

    calls = [("add", "1"), ("alone", "2"), ("echo", "3")]
    await run(Scripted(ask(*calls), say("ok")), call)
    assert (most, order) == (1, [1, 2, 3])


async def test_media_and_the_server_go_with_a_result() -> None:
    picture = {"media_type": "image/png", "data": "eA=="}

    async def call(_: PlannedCall) -> ToolResult:
        return ToolResult("", media=(picture,))  # pyright: ignore[reportArgumentType]

    model = Scripted(ask(("add", "1")), say("ok"))
    await run(model, call)
    assert model.told[1][2]["content"][0].get("media") == [picture]


async def test_a_call_that_raises_takes_its_siblings_with_it() -> None:
    cancelled: list[int] = []

    async def call(planned: PlannedCall) -> ToolResult:
        if planned.position == 1:
            raise LookupError("a bug of ours")
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(planned.position)
        raise AssertionError

    with pytest.raises(LookupError):
        await run(Scripted(ask(("add", "1"), ("add", "2")), say("ok")), call)
    assert cancelled == [2]


# --- retries


async def test_a_retry_begins_the_answer_anew() -> None:
    error = turn_error("overloaded", "x", retryable=True)
    model = Scripted([
        [TextDelta("half an ")],
        [TextDelta("answer"), Retrying(1, 10, error)],
        [TextDelta("whole"), Finished("stop", None, "r")],
    ])  # fmt: skip
    events = await run(model)
    assert kinds(events) == [
        "StepStarted", "Streamed", "StepStarted", "Streamed", "Streamed", "StepReady",
    ]  # fmt: skip
    ready = events[-1]
    assert isinstance(ready, StepReady)
    assert ready.answer.parts() == said("whole")
    started = [event.answer for event in events if isinstance(event, StepStarted)]
    assert started[-1] is ready.answer
    assert isinstance(events[3], Streamed)
    assert events[3].deltas[0] == TextDelta("answer")  # shown, and withdrawn with the same read


async def test_calls_of_a_failed_attempt_are_forgotten() -> None:
    error = turn_error("timeout", "x", retryable=True)
    first: list[Delta] = [ToolCallDelta(0, "c0", "add", "{"), Retrying(1, 1, error)]
    events = await run(Scripted([first, *say("ok")]))
    ready = events[-1]
    assert isinstance(ready, StepReady)
    assert (ready.calls, ready.answer.parts()) == ([], said("ok"))
