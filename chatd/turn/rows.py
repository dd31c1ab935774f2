"""What a turn made, as its rows and events hold it."""

from collections.abc import Sequence
from typing import Any, cast

from chatd.core.events import EventType
from chatd.core.messages import Part, ToolCallPart
from chatd.core.tools import CallState, ToolResult
from chatd.core.turns import TurnStatus, chat_status
from chatd.core.work import CallOutcome, PlannedCall
from chatd.loop import result_part


def status_event(status: TurnStatus) -> tuple[EventType, dict[str, Any]]:
    active = status if status is TurnStatus.RUNNING else None
    return "status", {"status": status, "chat_status": chat_status(active, status)}


def annotated(parts: list[Part], calls: Sequence[PlannedCall]) -> list[Part]:
    """The parts with the server each call goes to."""
    servers = {
        planned.call.id: str(planned.tool.server_id)
        for planned in calls
        if planned.tool is not None and planned.tool.server_id is not None
    }
    annotated: list[Part] = []
    for part in parts:
        if part["type"] == "tool-call" and part["tool_call_id"] in servers:
            server_id = servers[part["tool_call_id"]]
            part = cast(ToolCallPart, {**part, "mcp_server_config_id": server_id})
        annotated.append(part)
    return annotated


def outcome_of(planned: PlannedCall, result: ToolResult) -> CallOutcome:
    state: CallState = result.outcome
    part = dict(result_part(planned, result))
    return CallOutcome(planned.step, planned.position, state, part)
