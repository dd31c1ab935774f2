"""What a model's answer arrives in: a list of these per network read, consecutive text joined."""

from dataclasses import dataclass

from chatd.core.errors import TurnError
from chatd.core.messages import Usage


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Clean text (no NUL, no lone surrogate), never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """Clean text, never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call.

    `index` counts the answer's calls from 0 without gaps. `id` and `name` are set on a call's first
    piece only and empty on the others; ids are unique within the answer, not within the chat.
    `arguments` is the next piece of the JSON text, possibly empty.
    """

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class IntentDelta:
    """What a call is for, complete as soon as the arguments so far say it; once per call at most.

    Clean, one line, of at most 100 characters. The arguments hold it too, as the model wrote it.
    """

    index: int
    intent: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is complete; the last delta of an attempt that succeeded.

    `reason` is the provider's: stop, tool_calls, length, content_filter or a word of its own.
    Whether tools were called is for the ToolCallDeltas to say; providers differ here.
    """

    reason: str
    usage: Usage | None
    response_id: str


@dataclass(frozen=True, slots=True)
class Retrying:
    """The attempt failed: withdraw all its parts. `attempt` is the one that failed, from 1.

    The next attempt begins `delay_ms` from now.
    """

    attempt: int
    delay_ms: int
    error: TurnError


Delta = TextDelta | ReasoningDelta | ToolCallDelta | IntentDelta | Finished | Retrying
