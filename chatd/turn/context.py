"""What a built-in tool is given to work with."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from chatd.core.items import Item, Waits
from chatd.core.tools import JsonObject, ToolResult
from chatd.core.work import LoadedTurn, PlannedCall
from chatd.turn.deps import TurnDeps


@dataclass(frozen=True, slots=True)
class CallContext:
    """`max_text`: bytes its result may have."""

    deps: TurnDeps
    turn: LoadedTurn
    max_text: int


Handler = Callable[
    [CallContext, PlannedCall, JsonObject, Item | None], Awaitable[ToolResult | Waits]
]
"""The call, its arguments and, when it has waited for a child before, that item."""
