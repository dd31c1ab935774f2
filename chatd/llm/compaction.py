"""Summing up a conversation: when, of what, and by which call."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import orjson

from chatd.core.answers import Answer
from chatd.core.deltas import Retrying
from chatd.core.errors import TurnFailed, turn_error
from chatd.core.messages import HistoryMessage, Part, TextPart, Usage
from chatd.core.models import Model, ReasoningEffort
from chatd.core.tools import OfferedTool
from chatd.llm.clients import ModelClient
from chatd.llm.errors import too_long
from chatd.llm.prompt import Message
from chatd.llm.retry import complete_with_retries

Messages = list[Message]

SUMMARY_S = 90.0
MAX_ATTEMPTS = 4
NEVER = 100
GROWTH = 0.1
"""So much of the window must be new before what was summed up is summed up again."""

MAX_SHORTENINGS = 4
BYTES_A_TOKEN = 3
MAX_RESULT_CHARS = 2000

INSTRUCTION = """\
The conversation above is about to be removed from your memory. Do not continue it and call \
nothing: write the notes you will need to carry on without it.

Cover, under short headings: what the user wants, with every constraint and preference they gave; \
what has been done so far and what came of it; facts, names, numbers, identifiers, paths and \
quotations that may be needed again, exactly as they were; errors met and how they were solved; \
what is still to be done, and the very next step.

Leave out pleasantries and whatever was superseded. Write in the language of the conversation."""

INTRODUCTION = """\
The earlier part of this conversation was removed to save room. These are the notes about it:

{summary}"""

TASK_FOLLOWS = """


The user's latest message follows once more, word for word. What the notes call done is done: go \
on from there."""

OMITTED = "[The oldest part of the conversation did not fit and was left out.]"


@dataclass(frozen=True, slots=True)
class Calling:
    """What every model call of a turn has in common."""

    client: ModelClient
    model: Model
    tools: Sequence[OfferedTool]
    effort: ReasoningEffort | None
    render: Callable[[Sequence[HistoryMessage]], Awaitable[Messages]]
    """A history as the provider gets it, with all instructions before it."""
    still_mine: Callable[[], Awaitable[bool]]
    asked: Callable[[Messages], None]
    """Told of each request."""
    lost: Callable[[Answer], None]
    """Told of what was said of an answer that is not kept."""
    patience_s: float = SUMMARY_S
    """For a summary, retries included."""


def entered(usage: Usage) -> int:
    """The tokens of a model call that its history took; cached ones are among the input's."""
    return usage["input_tokens"] or usage["total_tokens"]


def is_due(used: int | None, since_summary: int | None, *, limit: int, threshold: int) -> bool:
    """Whether the last call filled the window so far that its history should be summed up.

    `since_summary`: what the first call after the last summary took. What no summary makes smaller
    is not summed up over and over.
    """
    if used is None or threshold >= NEVER:
        return False
    grown = since_summary is None or used - since_summary >= limit * GROWTH
    return grown and 100 * used >= threshold * limit


def has_answers(history: Sequence[HistoryMessage]) -> bool:
    """Without any there is nothing to sum up."""
    return any(message["role"] == "assistant" for message in history)


def opening(summary: str, *, task_follows: bool) -> list[Part]:
    """The message that the model's history then begins with."""
    text = INTRODUCTION.format(summary=summary) + (TASK_FOLLOWS if task_follows else "")
    return [TextPart(type="text", text=text)]


async def summarise(
    calling: Calling, history: Sequence[HistoryMessage], *, refused: bool
) -> Answer:
    """A summary of the history. Raises `TurnFailed`.

    `refused`: the provider has found the whole history too long. It is shortened until it fits:
    results first, then whole steps from the oldest on.
    """
    room = _size(history) * 3 // 4 if refused else None
    if room is not None:
        room = min(room, calling.model.context_limit * BYTES_A_TOKEN)
    for shortening in range(MAX_SHORTENINGS + 1):
        part = history if room is None else fitted(history, room)
        try:
            return await _ask(calling, await calling.render([*part, _said(INSTRUCTION)]))
        except TurnFailed as failed:
            if not too_long(failed.error) or shortening == MAX_SHORTENINGS:
                raise
        room = _size(part) // 2
    raise AssertionError("the last attempt answers or raises")


async def _ask(calling: Calling, messages: Messages) -> Answer:
    calling.asked(messages)
    answer = Answer()
    stream = complete_with_retries(
        calling.client,
        calling.model,
        messages,
        calling.tools,
        effort=calling.effort,
        tool_choice="none",
        still_mine=calling.still_mine,
        max_attempts=MAX_ATTEMPTS,
    )
    try:
        async with asyncio.timeout(calling.patience_s), aclosing(stream):
            async for deltas in stream:
                for delta in deltas:
                    if isinstance(delta, Retrying):
                        calling.lost(answer)
                        answer = Answer()
                    answer.add(delta)
        if "".join(answer.text).strip():
            return answer
        raise TurnFailed(turn_error("generic", "The model gave no summary.", retryable=True))
    except TimeoutError:
        calling.lost(answer)
        late = turn_error("timeout", "The summary was not ready in time.", retryable=True)
        raise TurnFailed(late) from None
    except BaseException:
        calling.lost(answer)
        raise


def fitted(history: Sequence[HistoryMessage], room: int) -> list[HistoryMessage]:
    """What fits into so many bytes: long results cut, then whole steps dropped, oldest first.

    A call stays with its results, and the last step stays whatever its size.
    """
    steps = _steps([_shortened(message) for message in history])
    left = room
    kept: list[list[HistoryMessage]] = []
    for step in reversed(steps):
        left -= _size(step)
        if left < 0 and kept:
            break
        kept.append(step)
    messages = [message for step in reversed(kept) for message in step]
    return messages if len(kept) == len(steps) else [_said(OMITTED), *messages]


def _steps(history: Sequence[HistoryMessage]) -> list[list[HistoryMessage]]:
    """Each message with the results that belong to it."""
    steps: list[list[HistoryMessage]] = []
    for message in history:
        if message["role"] == "tool" and steps:
            steps[-1].append(message)
        else:
            steps.append([message])
    return steps


def _shortened(message: HistoryMessage) -> HistoryMessage:
    if message["role"] != "tool":
        return message
    return HistoryMessage(role="tool", content=[_short(part) for part in message["content"]])


def _short(part: Part) -> Part:
    """Without pictures and sound, which cost more than they say about what was done."""
    if part["type"] != "tool-result":
        return part
    part = part.copy()
    part.pop("media", None)
    if len(part["result"]) > MAX_RESULT_CHARS:
        part["result"] = part["result"][:MAX_RESULT_CHARS] + "… [cut]"
    return part


def _size(history: Sequence[HistoryMessage]) -> int:
    return len(orjson.dumps(history))


def _said(words: str) -> HistoryMessage:
    return HistoryMessage(role="user", content=[TextPart(type="text", text=words)])
