"""Open items: what a turn waits for, who may answer it and what happens if nobody does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args
from uuid import UUID

from chatd.core.tools import JsonObject

ItemKind = Literal["tool_result", "approval", "elicitation", "auth", "child"]
ItemState = Literal["open", "answered", "expired", "cancelled"]

ITEM_KINDS: tuple[str, ...] = get_args(ItemKind)
ITEM_STATES: tuple[str, ...] = get_args(ItemState)

TOOL_RESULT_S = 300.0
APPROVAL_S = 24 * 3600.0
ELICITATION_S = 3600.0
AUTH_S = 600.0
"""How long each may stay open."""


@dataclass(frozen=True, slots=True)
class NewItem:
    """What a call asks for before it can go on.

    `data` is shown to clients; `memory` is what the call needs to go on and nobody is shown.
    """

    kind: ItemKind
    data: JsonObject
    deadline_s: float | None = None
    memory: JsonObject | None = None
    child_chat_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Waits:
    """A call that cannot go on before its items are answered."""

    items: tuple[NewItem, ...]

    @classmethod
    def on(cls, item: NewItem) -> "Waits":
        """The one thing it waits for."""
        return cls((item,))


@dataclass(frozen=True, slots=True)
class Item:
    """An item as it is stored. `answer` is None unless it is `answered`."""

    id: UUID
    step: int
    position: int
    kind: ItemKind
    state: ItemState
    data: JsonObject
    memory: JsonObject | None = None
    answer: JsonObject | None = None
    answered_by: UUID | None = None
    """None: by the deadline, by a child, or by policy."""


def action_required(items: Sequence[JsonObject]) -> JsonObject:
    """What the client has to do; `tool_calls` are those its own tools are to answer."""
    calls = [item for item in items if item["kind"] == "tool_result"]
    keys = ("tool_call_id", "tool_name", "args")
    return {
        "tool_calls": [{key: call[key] for key in keys} for call in calls],
        "open_items": items,
    }
