"""Tools: as a server lists them, as a model is offered them, as they are called and answer."""

from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from chatd.core.messages import Media
from chatd.core.reasons import Reason

JsonObject = dict[str, Any]

INTENT = "model_intent"
"""The parameter in which a model says what a call is for."""

CallState = Literal[
    "intended", "sent", "waiting", "done", "failed", "unknown", "denied", "cancelled"
]
"""The journal's states; `sent` without a result after a crash is what must not be repeated."""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as its server lists it. The hints are the server's claims, untrusted by default."""

    name: str
    description: str
    input_schema: JsonObject
    title: str = ""
    read_only: bool = False
    idempotent: bool = False
    destructive: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class BuiltinTool:
    """A tool that the worker itself runs, under its own bare name. Equal to itself only."""

    spec: ToolSpec
    safe: bool = True
    """May run again after a crash."""
    parallel: bool = True
    stop_after: bool = False
    """A successful call ends the turn."""
    repeatable: bool = False
    """The very same call has another answer later."""
    root_only: bool = False
    """Not for sub-agents."""
    in_plan_mode: bool = True
    only_in_plan_mode: bool = False


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool under the name the model knows it by, with the way back to where it lives."""

    name: str
    """At most 64 of `[A-Za-z0-9_-]`."""
    original_name: str
    description: str
    parameters: JsonObject
    server_id: UUID | None = None
    """None: built-in or dynamic."""
    kind: Literal["mcp", "builtin", "dynamic"] = "mcp"
    """`builtin` runs in the worker, `dynamic` in the client."""
    read_only: bool = False
    """By the hint of a server whose annotations the administrator trusts."""
    stop_after: bool = False
    """A successful call ends the turn."""
    safe: bool = False
    """May be called again when it is unknown whether a call arrived."""
    parallel: bool = True
    repeatable: bool = False
    """The very same call has another answer later."""
    model_intent: bool = False
    definition_hash: str = ""
    """Of all that its server says of it: `chatd.core.pins.definition_hash`."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call as the model wrote it; `arguments` is its JSON text, which may not be JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call answered: `text` and `media` for the model; `outcome` for the journal.

    `unknown`: the request left and no answer came, so the call may have run.
    """

    text: str
    is_error: bool = False
    media: tuple[Media, ...] = field(default=())
    outcome: Literal["done", "failed", "unknown", "denied", "cancelled"] = "done"
    cut_from: int = 0
    """Bytes of text the server sent, when more than the model is given; else 0."""
    refused: Literal["account", "access"] | None = None
    """The server did not take our credentials at all, or not for this."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Something policy left out, and a reason that users and admins can read."""

    name: str
    reason: Reason
    server_id: UUID | None = None
    detail: str = ""
    rule: str = ""
    """Which setting decided, for administrators."""
