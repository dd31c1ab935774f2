"""What a server asks of people and tells while one of its tools runs; pure."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from chatd.core.tools import JsonObject


@dataclass(frozen=True, slots=True)
class Elicitation:
    """One question, fit to be shown: a form to fill in (`schema`) or a page to visit (`url`)."""

    mode: Literal["form", "url"]
    message: str
    schema: JsonObject | None = None
    url: str | None = None
    elicitation_id: str | None = None

    @classmethod
    def of(cls, request: JsonObject) -> "Elicitation":
        """One of `InputRequired.requests`, which have been checked."""
        params = request["params"]
        return cls(
            mode=params["mode"],
            message=params["message"],
            schema=params.get("requestedSchema"),
            url=params.get("url"),
        )


@dataclass(frozen=True, slots=True)
class ElicitAnswer:
    """What became of a question; `content` only of a form that was accepted."""

    action: Literal["accept", "decline", "cancel"]
    content: JsonObject | None = None

    def response(self) -> JsonObject:
        """As a server reads it."""
        if self.content is None:
            return {"action": self.action}
        return {"action": self.action, "content": self.content}


@dataclass(frozen=True, slots=True)
class InputRequired:
    """A call (2026-07-28) that goes on when it is made again with the answers and the state.

    `requests` is never empty: each is an `elicitation/create`, checked and fit to be shown. An
    answer goes under its request's key. `state` is the server's own: never read, never changed.
    """

    requests: dict[str, JsonObject]
    state: str | None


@dataclass(frozen=True, slots=True)
class Progress:
    """What a server tells of a call that runs; `total` None: unknown."""

    progress: float
    total: float | None
    message: str


@dataclass(frozen=True, slots=True)
class LogLine:
    """A log message of the server about a call; `level` as in syslog, `info` and above."""

    level: str
    logger: str
    text: str


Elicit = Callable[[Elicitation], Awaitable[ElicitAnswer]]
