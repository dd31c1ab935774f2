"""One tool call, from the model's words to its result: asked, journaled, sent, bounded."""

import time
from typing import Literal

import orjson

from chatd import telemetry
from chatd.core.accounts import refusal_sentence
from chatd.core.asking import InputRequired
from chatd.core.budget import budget
from chatd.core.errors import Stale
from chatd.core.items import APPROVAL_S, TOOL_RESULT_S, Item, ItemKind, NewItem, Waits
from chatd.core.servers import McpServer
from chatd.core.tools import JsonObject, OfferedTool, ToolResult
from chatd.core.work import LoadedTurn, PlannedCall
from chatd.policy.approvals import approval_memory, approval_required, approves
from chatd.policy.intent import own_parameters, unwrap_intent
from chatd.store.work import mark_sent
from chatd.stream.publisher import TurnFeed
from chatd.turn.asking import Asking, answers_of, waits_for
from chatd.turn.builtins import HANDLERS
from chatd.turn.connecting import explained, replaced
from chatd.turn.context import CallContext
from chatd.turn.deps import TurnDeps
from chatd.turn.results import fit
from chatd.turn.toolbox import Toolbox

MAX_ROUNDS = 10
"""How often one call may ask for more input."""

MAX_ASKED = 3
"""How often somebody is asked about one call: its tool may change each time they have."""

SEND_WITHIN_S = 2.0
"""A call must leave so soon after it was journaled as sent, or not at all."""


class Calls:
    """Makes the calls of one turn. Whatever a tool does is a result, never an exception."""

    def __init__(self, deps: TurnDeps, turn: LoadedTurn, toolbox: Toolbox, feed: TurnFeed) -> None:
        self._deps = deps
        self._feed = feed
        self._turn = turn
        self._toolbox = toolbox
        self.max_text = budget(turn.model.context_limit if turn.model else 0)

    async def call(self, planned: PlannedCall) -> ToolResult | Waits:
        """Raises `LeaseLost`."""
        tool = planned.tool
        if tool is None:
            item = self._item(planned, "approval")
            if item is not None and item.answer is not None and item.answer["decision"] == "deny":
                return _denied(item)
            return failed(f"There is no tool named {planned.call.name}.")
        arguments = _arguments(planned, tool)
        if isinstance(arguments, ToolResult):
            return arguments
        match tool.kind:
            case "mcp":
                return await self._call_server(planned, tool, arguments)
            case "builtin":
                return await self._call_builtin(planned, arguments)
            case "dynamic":
                return await self._call_client(planned)

    def _items(self, planned: PlannedCall, kind: ItemKind) -> list[Item]:
        """What of this kind the call has waited for, oldest first."""
        place = (planned.step, planned.position, kind)
        return [i for i in self._turn.items if (i.step, i.position, i.kind) == place]

    def _item(self, planned: PlannedCall, kind: ItemKind) -> Item | None:
        """The newest of them."""
        items = self._items(planned, kind)
        return items[-1] if items else None

    async def _call_client(self, planned: PlannedCall) -> ToolResult | Waits:
        item = self._item(planned, "tool_result")
        if item is None:
            data = {"tool_name": planned.call.name, "args": planned.call.arguments}
            return Waits.on(NewItem("tool_result", data, TOOL_RESULT_S))
        if item.answer is None:
            return failed("The client did not answer this call in time.")
        text, is_error = item.answer["text"], item.answer["is_error"]
        outcome = "failed" if is_error else "done"
        return await self._fit(planned, ToolResult(text, is_error=is_error, outcome=outcome))

    async def _fit(self, planned: PlannedCall, result: ToolResult) -> ToolResult:
        return await fit(self._deps.db, self._turn.claim, planned, result, self.max_text)

    async def _call_builtin(
        self, planned: PlannedCall, arguments: JsonObject
    ) -> ToolResult | Waits:
        item = self._item(planned, "child")
        if not await self._marked(planned):
            return _closed()
        context = CallContext(self._deps, self._turn, self.max_text)
        return await HANDLERS[planned.call.name](context, planned, arguments, item)

    async def _marked(self, planned: PlannedCall) -> bool:
        """Journal the call as sent; False when the turn was stopped before."""
        while True:
            version = self._toolbox.policy_version
            try:
                place = (planned.step, [planned.position], version)
                marked = await mark_sent(self._deps.db, self._turn.claim, *place)
            except Stale:
                await self._toolbox.reload()
                continue
            return planned.position in marked

    async def _call_server(
        self, planned: PlannedCall, tool: OfferedTool, arguments: JsonObject
    ) -> ToolResult | Waits:
        while True:
            version = self._toolbox.decided_for  # a sibling may move it on while we connect
            reason = self._toolbox.refusal(tool)
            server = self._toolbox.server(tool)
            if reason is not None:
                return _refused(refusal_sentence(reason, server))
            assert server is not None, "a tool that is not refused has a server"
            asked = self._approval(planned, tool, server, arguments)
            if asked is not None:
                return asked
            failed_to = await self._deps.sessions.connect(server, self._toolbox.principal(server))
            if failed_to is not None:
                if await replaced(self._deps, self._toolbox, server, failed_to):
                    continue
                return await self._explained(server, failed_to)
            began = time.monotonic()
            place = (planned.step, [planned.position], version)
            try:
                marked = await mark_sent(self._deps.db, self._turn.claim, *place)
            except Stale:
                await self._toolbox.catch_up(version)
                continue
            if planned.position not in marked:
                return _closed()
            leave_by = began + SEND_WITHIN_S
            return await self._send(planned, tool, server, arguments, leave_by=leave_by)

    async def _explained(self, server: McpServer, result: ToolResult) -> ToolResult:
        return await explained(self._deps, self._toolbox, self._feed, server, result)

    def _approval(
        self, planned: PlannedCall, tool: OfferedTool, server: McpServer, arguments: JsonObject
    ) -> ToolResult | Waits | None:
        """None when the call may go out; else that it waits, or was denied."""
        if not approval_required(tool, server):
            return None
        items = self._items(planned, "approval")
        if items:
            item = items[-1]
            if item.answer is None:
                return _refused("Nobody approved this call in time.")
            if item.answer["decision"] != "approve":
                return _denied(item)  # a no is about the call, whatever its tool is now
            if approves(item.memory or {}, tool, arguments):
                return None
            if len(items) >= MAX_ASKED:
                return _refused("The tool has changed each time this call was approved.")
        data = {
            "tool_name": planned.call.name,
            "args": planned.call.arguments,
            "server_id": str(server.id),
            "server": server.slug,
            "original_name": tool.original_name,
            "read_only": tool.read_only,
        }
        memory = approval_memory(tool, arguments)
        return Waits.on(NewItem("approval", data, APPROVAL_S, memory))

    async def _send(
        self,
        planned: PlannedCall,
        tool: OfferedTool,
        server: McpServer,
        arguments: JsonObject,
        *,
        leave_by: float,
    ) -> ToolResult | Waits:
        attributes = {"mcp.server": server.slug, "mcp.tool": tool.original_name}
        asking = Asking(self._deps, self._turn.claim, planned, self._feed)
        items = self._items(planned, "elicitation")
        asked, responses, state = answers_of(items)
        with telemetry.stage("tool_call", attributes):
            result = await self._deps.sessions.call_tool(
                server,
                self._toolbox.principal(server),
                tool.original_name,
                arguments,
                elicit=asking.elicit,
                progress=asking.progress,
                heard=asking.heard,
                responses=responses,
                request_state=state,
                meta={"chatd/tool_call_id": planned.call.id},
                leave_within_s=leave_by - time.monotonic(),
            )
        if isinstance(result, InputRequired):
            if asked < MAX_ROUNDS:
                return waits_for(planned, result, asked + 1)
            result = failed(f"The tool asked {MAX_ROUNDS} times and did not finish.")
        result = await self._explained(server, result)
        telemetry.TOOL_RESULT_BYTES.observe(len(result.text.encode()))
        result = await self._fit(planned, result)
        if result.cut_from:
            telemetry.TOOL_RESULTS_TRUNCATED.inc()
        if result.is_error:
            telemetry.TOOL_ERRORS.inc()
        return result


def _arguments(planned: PlannedCall, tool: OfferedTool) -> JsonObject | ToolResult:
    """The call's arguments, or what is wrong with them for the model to mend."""
    text = planned.call.arguments
    if not text.strip():
        return {}
    try:
        arguments: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return failed(f"invalid JSON input: {error}")
    if tool.model_intent:
        arguments = unwrap_intent(arguments, own_parameters(tool.parameters))
    if not isinstance(arguments, dict):
        return failed("invalid JSON input: expected an object")
    return arguments


def failed(text: str, outcome: Literal["failed", "cancelled"] = "failed") -> ToolResult:
    """A result that tells the model what went wrong."""
    return ToolResult(text, is_error=True, outcome=outcome)


def _denied(item: Item) -> ToolResult:
    """By the user, or by policy while it waited for them."""
    assert item.answer is not None
    text = reason = item.answer.get("reason", "")
    if item.answered_by is not None:
        text = f"The user denied this call{': ' + reason if reason else '.'}"
    return _refused(text)


def _refused(text: str) -> ToolResult:
    return ToolResult(text, is_error=True, outcome="denied")


def _closed() -> ToolResult:
    return failed("The call was closed before it was sent.", "cancelled")
