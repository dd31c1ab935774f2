"""The script language: lines of a user message that begin with `/`, parsed into steps.

`/fail`, `/drop` and `/hang` are what goes wrong on the way to an answer; the other lines are
answers. So a step is an answer with the mishaps written above it: `/fail 503 2` over `/say hello`
is a model call that says hello at its third attempt.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

# What clients repeat by themselves; with any other error they turn to the user.
_REPEATED = {408, 409, 425, 429}


@dataclass(frozen=True)
class Say:
    text: str


@dataclass(frozen=True)
class Long:
    tokens: int
    gap: float


@dataclass(frozen=True)
class ToolCall:
    name: str
    # As written: what is not JSON is sent too, as real models sometimes do.
    arguments: str


@dataclass(frozen=True)
class Call:
    calls: tuple[ToolCall, ...]


@dataclass(frozen=True)
class Tools:
    pass


@dataclass(frozen=True)
class Tool:
    name: str


@dataclass(frozen=True)
class Messages:
    pass


@dataclass(frozen=True)
class Echo:
    pass


@dataclass(frozen=True)
class Fail:
    status: int
    times: float
    retry_after: int | None


@dataclass(frozen=True)
class Drop:
    tokens: int
    times: float = 1


@dataclass(frozen=True)
class Hang:
    seconds: float


Answer = Say | Long | Call | Tools | Tool | Messages | Echo
Mishap = Fail | Drop | Hang


@dataclass(frozen=True)
class Step:
    """One model call of the turn. An answer that is not there is the end of the script."""

    mishaps: tuple[Mishap, ...] = ()
    answer: Answer | None = None


@lru_cache(256)
def parse(text: str) -> tuple[Step, ...]:
    """The steps; none if the text has no script."""
    steps: list[Step] = []
    mishaps: tuple[Mishap, ...] = ()
    for line in text.splitlines():
        if not line.startswith("/"):
            continue
        part = _parse_line(line)
        if isinstance(part, Mishap):
            mishaps = (*mishaps, part)
        else:
            steps.append(Step(mishaps, part))
            mishaps = ()
    if mishaps:
        steps.append(Step(mishaps))
    return tuple(steps)


def _parse_line(line: str) -> Answer | Mishap:
    word, _, rest = line.partition(" ")
    reader = _READERS.get(word)
    if reader is None:
        return Say(f"no such step: {line}")
    try:
        return reader(rest.strip())
    except ValueError:
        return Say(f"cannot read step: {line}")


def _long(rest: str) -> Long:
    tokens, gap = rest.split()
    return Long(_count(tokens), _seconds(gap) / 1000)


def _call(rest: str) -> Call:
    """NAME {json} & NAME {json} …, where the JSON may contain an ampersand itself."""
    calls: list[ToolCall] = []
    while rest:
        name, _, rest = rest.partition(" ")
        arguments, rest = _arguments(rest.lstrip())
        calls.append(ToolCall(name, arguments))
    if not calls:
        raise ValueError("no tool named")
    return Call(tuple(calls))


def _arguments(rest: str) -> tuple[str, str]:
    """The arguments and what follows the next ampersand."""
    if rest.startswith("& ") or not rest:
        return "{}", rest[2:].lstrip()
    try:
        _, end = json.JSONDecoder().raw_decode(rest)
    except ValueError:
        end = -1
    after = rest[end:].lstrip() if end >= 0 else ""
    if end >= 0 and (not after or after.startswith("& ")):
        return rest[:end], after[2:].lstrip()
    written, _, after = rest.partition(" & ")
    return written.strip(), after.lstrip()


def _fail(rest: str) -> Fail:
    status, times, retry_after, *_ = [*(int(word) for word in rest.split()), None, None, None]
    if status is None or not 400 <= status <= 599:
        raise ValueError("not the status of an error")
    if times is None:
        repeated = status >= 500 or status in _REPEATED
        return Fail(status, 1 if repeated else math.inf, None)
    return Fail(status, times, retry_after)


def _count(word: str) -> int:
    count = int(word)
    if not 0 <= count <= 1_000_000:
        raise ValueError("out of range")
    return count


def _seconds(word: str) -> float:
    seconds = float(word)
    if not 0 <= seconds <= 1e9:
        raise ValueError("out of range")
    return seconds


_READERS: dict[str, Callable[[str], Answer | Mishap]] = {
    "/say": Say,
    "/long": _long,
    "/call": _call,
    "/tools": lambda rest: Tools(),
    "/tool": Tool,
    "/messages": lambda rest: Messages(),
    "/echo": lambda rest: Echo(),
    "/fail": _fail,
    "/drop": lambda rest: Drop(_count(rest)),
    "/hang": lambda rest: Hang(_seconds(rest)),
}
