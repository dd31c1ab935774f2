"""What a worker holds of a turn: the claim, what it loaded, what its commits answered."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NotRequired, TypedDict
from uuid import UUID

from chatd.core.errors import TurnError
from chatd.core.items import Item
from chatd.core.messages import HistoryMessage, NewMessage
from chatd.core.models import Model, ReasoningEffort
from chatd.core.servers import McpServer
from chatd.core.tools import CallState, JsonObject, OfferedTool, ToolCall
from chatd.core.turns import OnAuthRequired


@dataclass(frozen=True, slots=True)
class Claim:
    """One claimed turn. `version` is the chat's at the claim: it orders attempts across turns."""

    turn_id: UUID
    chat_id: UUID
    owner_id: UUID
    lease_id: UUID
    attempt: int
    commits: int
    version: int
    waited_s: float
    """Seconds from runnable to claimed, by the database's clock."""
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One tool call of this turn as the journal knows it; `result` as `NewMessage` content."""

    step: int
    position: int
    state: CallState
    call: ToolCall
    safe: bool
    server_id: UUID | None
    result: JsonObject | None


class StoredMessage(HistoryMessage):
    """A message of the history; `step` only when it belongs to the turn itself.

    `compressed`: written by a compaction, right before the model call of `step`.
    """

    step: int | None
    compressed: NotRequired[bool]


@dataclass(frozen=True, slots=True)
class LoadedTurn:
    """Everything a turn needs, read once."""

    claim: Claim
    kind: Literal["message", "compact"]
    parent_chat_id: UUID | None
    root_chat_id: UUID | None
    mode: Literal["explore"] | None
    title: str
    title_source: str
    plan_mode: bool
    reasoning_effort: ReasoningEffort | None
    selected_ids: frozenset[UUID]
    servers: tuple[McpServer, ...]
    """The selected ones and every enabled force_on, with their policy columns as they are now."""
    group_ids: frozenset[UUID]
    """Of the owner, as of the same moment."""
    policy_version: int
    system_prompt: str
    deployment: JsonObject
    """What administrators set for everybody, by key."""
    personal: JsonObject
    """What the owner set, by key."""
    dynamic_tools: list[JsonObject]
    model: Model | None
    model_error: TurnError | None
    """Why there is no model to call; None when there is one."""
    history: list[StoredMessage]
    journal: list[JournalEntry]
    """Of the last step with calls: those of the steps before it are answered in the history."""
    items: list[Item]
    """What its calls have waited for, oldest first, in the last step in which any did."""
    notices: list["Notice"]
    """Those stored by earlier attempts."""
    ran_s: float
    """Since it was first claimed, without the time it was parked for open items."""
    first_token_at: datetime | None
    entered_first: int | None = None
    """Tokens that entered the first model call of this history: a compaction begins a new one."""
    entered_last: int | None = None
    on_auth_required: OnAuthRequired = "skip"


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A call about to be journaled; `tool` is None when the model named no tool it was offered."""

    call: ToolCall
    step: int
    position: int
    tool: OfferedTool | None


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """A call's end as the journal keeps it."""

    step: int
    position: int
    state: CallState
    result: JsonObject


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit answered: the chat's new version and the new rows' ids, in order."""

    version: int
    commits: int
    status: str
    messages: tuple[tuple[int, str], ...]
    """(id, created_at as RFC 3339)."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The turn's last commit; `promoted_id` is the chat's next turn, now pending; `more`: other
    turns were pending, whoever's."""

    version: int
    status: str
    messages: tuple[tuple[int, str], ...]
    promoted_id: UUID | None
    more: bool


@dataclass(frozen=True, slots=True)
class Held:
    """A lease as the renewal found it."""

    status: str
    policy_version: int


class Notice(TypedDict):
    """Something that went otherwise than configured, for the user to read."""

    code: str
    server_id: str | None
    message: str
    connect_url: NotRequired[str | None]
    """Of `mcp_auth_required`: a path of ours; None: the user has to sign in."""


def message_row(message: NewMessage) -> dict[str, Any]:
    """The message's columns, as the commit statements read them."""
    config = message.model_config_id
    return {
        "step": message.step,
        "position": message.position,
        "model_config_id": str(config) if config else None,
        "role": message.role,
        "content": message.content,
        "usage": message.usage,
        "context_limit": message.context_limit,
        "total_cost_micros": message.cost_micros,
        "runtime_ms": message.runtime_ms,
        "provider_response_id": message.provider_response_id,
    }
