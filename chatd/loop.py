"""The tool loop: model call, tool calls, model call, until an answer without calls.

It yields what happens and waits for its caller before it goes on: after `StepReady` the caller has
committed the step, after `ResultsReady` its results are history. It knows no store, no provider and
no server: `call` journals a call as sent before it leaves.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from chatd.core.answers import Answer
from chatd.core.deltas import Delta, Retrying
from chatd.core.errors import TurnFailed, turn_error
from chatd.core.items import NewItem, Waits
from chatd.core.messages import HistoryMessage, Part, ToolResultPart
from chatd.core.tools import OfferedTool, ToolCall, ToolResult
from chatd.core.work import PlannedCall

MAX_STEPS = 1200
WARN_AT = 3
STOP_AT = 5
"""How often the very same call may come before the model is warned, and the turn ended."""
STOP_REPEATABLE_AT = 100
"""The same for calls whose answer may have changed."""

WARNING = (
    "\n\n[You have made this exact call {times} times. Its result will not change: use what you"
    " have, or try something else.]"
)


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A model call begins; `answer` fills while it streams."""

    step: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class Streamed:
    """What one network read brought, already part of the answer."""

    deltas: list[Delta]


@dataclass(frozen=True, slots=True)
class StepReady:
    """The model call is complete: commit it."""

    step: int
    answer: Answer
    calls: list[PlannedCall]


@dataclass(frozen=True, slots=True)
class CallEnded:
    """One result is there; `last` when no other call of the step is still out."""

    planned: PlannedCall
    result: ToolResult
    last: bool


@dataclass(frozen=True, slots=True)
class ResultsReady:
    """All calls of the step are answered: commit the results, in call order."""

    step: int
    results: list[tuple[PlannedCall, ToolResult]]


@dataclass(frozen=True, slots=True)
class Parked:
    """Every call of the step is answered or waits for somebody; the loop ends here.

    `results`: those not yet told by a `CallEnded` that was not the last.
    """

    step: int
    results: list[tuple[PlannedCall, ToolResult]]
    waiting: list[tuple[PlannedCall, NewItem]]


LoopEvent = StepStarted | Streamed | StepReady | CallEnded | ResultsReady | Parked


@dataclass(frozen=True, slots=True)
class OpenStep:
    """A committed step whose results are not: after a crash, or handed over by another worker."""

    step: int
    open: list[PlannedCall]
    answered: list[tuple[PlannedCall, ToolResult]]


@dataclass(slots=True)
class Start:
    """Where a turn stands. `history` is what the model has been told; it grows with the loop."""

    history: list[HistoryMessage]
    next_step: int = 1
    """Step 0 is the user message."""
    open_step: OpenStep | None = None
    made: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    over: bool = False
    """A tool has ended the turn: its results are history, and no model call follows."""


Complete = Callable[[list[HistoryMessage]], AsyncGenerator[list[Delta]]]
"""One model call with this history. A compaction may first replace what the list holds, in place:
it is what the model has been told from then on."""
CallTool = Callable[[PlannedCall], Awaitable[ToolResult | Waits]]
Tools = Callable[[], dict[str, OfferedTool]]
"""The offer as it is now, by name."""


async def run_loop(
    start: Start, *, complete: Complete, call: CallTool, tools: Tools, max_steps: int = MAX_STEPS
) -> AsyncGenerator[LoopEvent]:
    """Ends after the `StepReady` of an answer without calls, after the results of a tool that ends
    the turn, with `Parked`, or at once. Raises `TurnFailed` at a limit."""
    step, open_step = start.next_step, start.open_step
    while not start.over:
        if open_step is not None:
            calls, over = _finish_calls(start, open_step, call), False
            try:
                async for event in calls:
                    over = ends_turn(event)
                    yield event
            finally:
                await calls.aclose()
            if over:
                return
        if step > max_steps:
            raise TurnFailed(turn_error("step_limit", f"The turn took {max_steps} steps."))
        asking = _ask_model(start, step, complete, tools)
        planned: list[PlannedCall] = []
        try:
            async for event in asking:
                planned = event.calls if isinstance(event, StepReady) else planned
                yield event
        finally:
            await asking.aclose()
        if not planned:
            return
        step, open_step = step + 1, OpenStep(step, planned, [])


def ends_turn(event: LoopEvent) -> bool:
    """Whether no model call follows: the turn parks, or a tool that ends it has succeeded."""
    if isinstance(event, ResultsReady):
        return any(
            planned.tool is not None and planned.tool.stop_after and not result.is_error
            for planned, result in event.results
        )
    return isinstance(event, Parked)


async def _ask_model(
    start: Start, step: int, complete: Complete, tools: Tools
) -> AsyncGenerator[LoopEvent]:
    """One model call, streamed; a retry begins its answer anew."""
    answer = Answer()
    yield StepStarted(step, answer)
    stream = complete(start.history)
    try:
        async for deltas in stream:
            for delta in deltas:
                if isinstance(delta, Retrying):
                    answer = Answer()
                    yield StepStarted(step, answer)
                else:
                    answer.add(delta)
            yield Streamed(deltas)
    finally:
        await stream.aclose()
    planned = plan_calls(answer.tool_calls(), step, tools())
    start.history.append(HistoryMessage(role="assistant", content=answer.parts()))
    yield StepReady(step, answer, planned)


def plan_calls(
    calls: Sequence[ToolCall], step: int, tools: dict[str, OfferedTool]
) -> list[PlannedCall]:
    """The calls in the model's order; a result's message stands one place behind its call's."""
    return [
        PlannedCall(call, step, position, tools.get(call.name))
        for position, call in enumerate(calls, 1)
    ]


async def _finish_calls(
    start: Start, open_step: OpenStep, call: CallTool
) -> AsyncGenerator[LoopEvent]:
    results = dict[int, tuple[PlannedCall, ToolResult]]()
    results |= {planned.position: (planned, result) for planned, result in open_step.answered}
    waiting: list[tuple[PlannedCall, NewItem]] = []
    if open_step.open:
        times = _counted(start, open_step.open)
        running = _started(open_step.open, call)
        try:
            left = set(running)
            while left:
                done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                for place, task in enumerate(sorted(done, key=lambda t: running[t].position), 1):
                    planned, outcome = running[task], task.result()
                    if isinstance(outcome, Waits):
                        waiting += [(planned, item) for item in outcome.items]
                        continue
                    result = _warned(outcome, times[_key(planned)])
                    results[planned.position] = (planned, result)
                    yield CallEnded(planned, result, last=not left and place == len(done))
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
    ordered = [results[position] for position in sorted(results)]
    if waiting:
        yield Parked(open_step.step, ordered, waiting)
        return
    yield ResultsReady(open_step.step, ordered)
    start.history.extend(
        HistoryMessage(role="tool", content=[result_part(planned, result)])
        for planned, result in ordered
    )


def _started(
    calls: list[PlannedCall], call: CallTool
) -> dict[asyncio.Task[ToolResult | Waits], PlannedCall]:
    """All at once, unless one of the tools must not run beside others: then in call order."""
    together = all(planned.tool is None or planned.tool.parallel for planned in calls)
    turns = asyncio.Semaphore(len(calls) if together else 1)

    async def one(planned: PlannedCall) -> ToolResult | Waits:
        async with turns:
            return await call(planned)

    return {asyncio.create_task(one(planned)): planned for planned in calls}


def _key(planned: PlannedCall) -> tuple[str, str]:
    return planned.call.name, planned.call.arguments


def _counted(start: Start, calls: list[PlannedCall]) -> Counter[tuple[str, str]]:
    """In how many steps each of these very calls was made, unless its answer changes by itself.

    Raises `TurnFailed` at the limit.
    """
    start.made.update({_key(planned) for planned in calls})
    times = Counter[tuple[str, str]]()
    for planned in calls:
        made = start.made[_key(planned)]
        repeatable = planned.tool is not None and planned.tool.repeatable
        if made >= (STOP_REPEATABLE_AT if repeatable else STOP_AT):
            message = f"The model made the same call {made} times in this turn."
            raise TurnFailed(turn_error("step_limit", message))
        if not repeatable:
            times[_key(planned)] = made
    return times


def _warned(result: ToolResult, times: int) -> ToolResult:
    if times < WARN_AT:
        return result
    return replace(result, text=result.text + WARNING.format(times=times))


def result_part(planned: PlannedCall, result: ToolResult) -> Part:
    """A tool result as the part its message holds."""
    part = ToolResultPart(
        type="tool-result",
        tool_call_id=planned.call.id,
        tool_name=planned.call.name,
        result=result.text,
        is_error=result.is_error,
    )
    if result.media:
        part["media"] = list(result.media)
    if planned.tool is not None and planned.tool.server_id is not None:
        part["mcp_server_config_id"] = str(planned.tool.server_id)
    return part
