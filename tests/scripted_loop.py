"""The tool loop with scripted models and tools that are plain functions."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from chatd.core.deltas import Delta, Finished, TextDelta, ToolCallDelta
from chatd.core.messages import HistoryMessage
from chatd.core.tools import OfferedTool, ToolResult
from chatd.core.work import PlannedCall
from chatd.loop import (
    LoopEvent,
    ResultsReady,
    Start,
    run_loop,
)
from tests.seed import said

Reads = Sequence[list[Delta]]
"""One model call: what each network read brings."""


def tool(name: str, **more: Any) -> OfferedTool:
    return OfferedTool(name, name, "", {}, **more)


TOOLS = {name: tool(name) for name in ("add", "echo")} | {
    "alone": tool("alone", parallel=False),
    "look": tool("look", repeatable=True),
}


def say(text: str) -> Reads:
    return [*([TextDelta(word)] for word in text.split()), [Finished("stop", None, "r")]]


def ask(*calls: tuple[str, str]) -> Reads:
    """A model call that makes these calls."""
    deltas: list[Delta] = [
        ToolCallDelta(index, f"c{index}", name, arguments)
        for index, (name, arguments) in enumerate(calls)
    ]
    return [[*deltas], [Finished("tool_calls", None, "r")]]


class Scripted:
    """Plays one model call after the other, and remembers what it was told and how it ended."""

    def __init__(self, *calls: Reads) -> None:
        self._calls = list(calls)
        self.told: list[list[HistoryMessage]] = []
        self.open = 0

    async def __call__(self, history: Sequence[HistoryMessage]) -> AsyncGenerator[list[Delta]]:
        self.told.append(list(history))
        self.open += 1
        try:
            for read in self._calls.pop(0):
                yield read
        finally:
            self.open -= 1


async def three(_: PlannedCall) -> ToolResult:
    return ToolResult("3")


async def run(
    model: Scripted,
    call: Callable[[PlannedCall], Awaitable[ToolResult]] = three,
    start: Start | None = None,
    **more: Any,
) -> list[LoopEvent]:
    start = start or Start([HistoryMessage(role="user", content=said("go"))])
    events = run_loop(start, complete=model, call=call, tools=lambda: TOOLS, **more)
    async with aclosing(events):
        return [event async for event in events]


def kinds(events: list[LoopEvent]) -> list[str]:
    return [type(event).__name__ for event in events]


def results(events: list[LoopEvent]) -> list[list[str]]:
    """The results of each step, in the order they are told to the model."""
    return [
        [result.text for _, result in event.results]
        for event in events
        if isinstance(event, ResultsReady)
    ]
