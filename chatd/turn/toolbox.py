"""The tools of one turn: selected, offered, and called after the policy is asked once more."""

import time
from collections.abc import Sequence
from typing import Literal

import orjson

from chatd import telemetry
from chatd.catalogue import Listing, Skipped
from chatd.core.errors import Stale
from chatd.core.reasons import SENTENCES, Reason
from chatd.core.servers import McpServer, Principal, principal_of
from chatd.core.tools import JsonObject, OfferedTool, ToolResult
from chatd.core.work import LoadedTurn, Notice, PlannedCall
from chatd.mcp.results import budget
from chatd.policy.intent import unwrap_intent
from chatd.policy.offer import Offer, offer
from chatd.policy.servers import Selection, select_servers
from chatd.policy.tools import tool_refusal
from chatd.store.work import mark_sent
from chatd.turn.deps import Control, TurnDeps

SEND_WITHIN_S = 2.0
"""A call must leave so soon after it was journaled as sent, or not at all."""

NOTIFIED: frozenset[Reason] = frozenset(
    {
        "auth_required",
        "forbidden",
        "not_found",
        "unreachable",
        "bad_answer",
        "unusable_name",
        "unusable_schema",
        "duplicate_name",
    }
)
"""Reasons for which a user wants to know; the others are how the chat was set up."""


class Toolbox:
    """Knows the turn's servers as of `policy_version`; reloads them when policy has moved."""

    def __init__(self, deps: TurnDeps, turn: LoadedTurn, control: Control) -> None:
        self._deps = deps
        self._turn = turn
        self._control = control
        self._servers = {server.id: server for server in turn.servers}
        self._policy_version = turn.policy_version
        self._offer = Offer((), {}, ())
        self._offered_for = 0
        self._told = {(notice["code"], notice["message"]) for notice in turn.notices}
        self.notices: list[Notice] = []
        """What the user should know and no commit has stored yet."""
        self.max_text = budget(turn.model.context_limit if turn.model else 0)

    @property
    def tools(self) -> Sequence[OfferedTool]:
        return self._offer.tools

    @property
    def by_name(self) -> dict[str, OfferedTool]:
        return dict(self._offer.by_name)

    async def open(self) -> None:
        """Select the servers, get their lists (all at once, from the catalogue), name the tools."""
        turn = self._turn
        self._offered_for = self._policy_version
        selection = self._selection()
        listings = await self._deps.catalogue.lists(
            [(server, self._principal(server)) for server in selection.kept]
        )
        listed = [
            (server, outcome.tools)
            for server, outcome in zip(selection.kept, listings, strict=True)
            if isinstance(outcome, Listing)
        ]
        self._offer = offer(listed)
        self._notify_servers(selection, listings)
        if self._offer.dropped:
            slugs = {server.id: server.slug for server in turn.servers}
            for drop in self._offer.dropped:
                slug = slugs.get(drop.server_id, "") if drop.server_id else ""
                self._notice(drop.reason, str(drop.server_id or ""), f"{slug}: {drop.name}")

    async def refresh(self) -> bool:
        """Decide again if policy has moved since the offer was made; answers whether it had."""
        if self._control.policy_version > self._policy_version:
            await self._reload()
        if self._policy_version == self._offered_for:
            return False
        await self.open()
        return True

    async def call(self, planned: PlannedCall) -> ToolResult:
        """Run one call. Raises `LeaseLost`; whatever the server does is a result."""
        tool = planned.tool
        if tool is None:
            return _failed(f"There is no tool named {planned.call.name}.")
        arguments = _arguments(planned, tool)
        if isinstance(arguments, ToolResult):
            return arguments
        while True:
            reason = self._refusal(tool)
            if reason is not None:
                return ToolResult(SENTENCES[reason], is_error=True, outcome="denied")
            server = self._servers[tool.server_id] if tool.server_id else None
            assert server is not None, "a tool that is not refused has a server"
            failed = await self._deps.sessions.connect(server, self._principal(server))
            if failed is not None:
                return failed
            began = time.monotonic()
            try:
                marked = await mark_sent(
                    self._deps.db,
                    self._turn.claim,
                    planned.step,
                    [planned.position],
                    self._policy_version,
                )
            except Stale:
                await self._reload()
                continue
            if planned.position not in marked:
                return _failed("The call was closed before it was sent.", "cancelled")
            return await self._send(
                planned, tool, server, arguments, leave_by=began + SEND_WITHIN_S
            )

    async def _send(
        self,
        planned: PlannedCall,
        tool: OfferedTool,
        server: McpServer,
        arguments: JsonObject,
        *,
        leave_by: float,
    ) -> ToolResult:
        attributes = {"mcp.server": server.slug, "mcp.tool": tool.original_name}
        with telemetry.stage("tool_call", attributes):
            result = await self._deps.sessions.call_tool(
                server,
                self._principal(server),
                tool.original_name,
                arguments,
                meta={"chatd/tool_call_id": planned.call.id},
                max_text=self.max_text,
                leave_within_s=leave_by - time.monotonic(),
            )
        telemetry.TOOL_RESULT_BYTES.observe(result.cut_from or len(result.text.encode()))
        if result.cut_from:
            telemetry.TOOL_RESULTS_TRUNCATED.inc()
        if result.is_error:
            telemetry.TOOL_ERRORS.inc()
        return result

    def _selection(self) -> Selection:
        turn = self._turn
        return select_servers(
            self._servers.values(),
            selected_ids=turn.selected_ids,
            plan_mode=turn.plan_mode,
            is_child=turn.parent_chat_id is not None,
        )

    def _refusal(self, tool: OfferedTool) -> Reason | None:
        turn = self._turn
        return tool_refusal(
            tool,
            self._servers,
            selected_ids=turn.selected_ids,
            plan_mode=turn.plan_mode,
            is_child=turn.parent_chat_id is not None,
        )

    async def _reload(self) -> None:
        servers, self._policy_version = await self._deps.loader.reload_servers(self._turn.claim)
        self._servers = {server.id: server for server in servers}

    def _principal(self, server: McpServer) -> Principal:
        claim = self._turn.claim
        return principal_of(
            server,
            user_id=claim.owner_id,
            chat_id=claim.chat_id,
            root_chat_id=self._turn.root_chat_id or claim.chat_id,
        )

    def _notify_servers(self, selection: Selection, listings: Sequence[Listing | Skipped]) -> None:
        for drop in selection.dropped:
            self._notice(drop.reason, str(drop.server_id or ""), drop.name)
        for server, outcome in zip(selection.kept, listings, strict=True):
            if isinstance(outcome, Skipped):
                self._notice(outcome.reason, str(server.id), server.slug)
            else:
                for drop in outcome.quarantined:
                    self._notice(drop.reason, str(server.id), f"{server.slug}: {drop.name}")

    def _notice(self, reason: Reason, server_id: str, name: str) -> None:
        """Once per turn and thing, whichever attempt told it."""
        message = f"{name}: {SENTENCES[reason]}"
        if reason in NOTIFIED and (reason, message) not in self._told:
            self._told.add((reason, message))
            self.notices.append(Notice(code=reason, server_id=server_id or None, message=message))


def _arguments(planned: PlannedCall, tool: OfferedTool) -> JsonObject | ToolResult:
    """The call's arguments, or what is wrong with them for the model to mend."""
    text = planned.call.arguments
    if not text.strip():
        return {}
    try:
        arguments: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return _failed(f"invalid JSON input: {error}")
    if tool.model_intent:
        arguments = unwrap_intent(arguments)
    if not isinstance(arguments, dict):
        return _failed("invalid JSON input: expected an object")
    return arguments


def _failed(text: str, outcome: Literal["failed", "cancelled"] = "failed") -> ToolResult:
    return ToolResult(text, is_error=True, outcome=outcome)
