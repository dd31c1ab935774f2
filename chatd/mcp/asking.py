"""The two questions a session is asked: which tools there are, and one call."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mcp_types import HEADER_MISMATCH, METHOD_NOT_FOUND

from chatd.core.text import clean_json
from chatd.core.tools import JsonObject, ToolResult
from chatd.mcp.errors import ServerFailed
from chatd.mcp.exchange import Exchange
from chatd.mcp.listing import Pages, ToolList
from chatd.mcp.session import Session
from chatd.mcp.waiting import READ_SLACK_S, answer

LIST_S = 10.0
LIST_ROOM = 8 * 1024 * 1024
"""Bytes of all pages of one list together."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a server tells of a call that runs; `total` None: unknown."""

    progress: float
    total: float | None
    message: str


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool; made again only where the first provably did nothing."""

    name: str
    arguments: JsonObject
    meta: JsonObject
    idle_s: float
    absolute_s: float
    exchange: Exchange
    progress: Callable[[Progress], None] | None

    async def made(self, session: Session) -> dict[str, Any]:
        """The raw result. Raises ServerFailed."""
        try:
            return await self._sent(session)
        except ServerFailed as failed:
            if failed.code != HEADER_MISMATCH:
                raise
        # Refused unread: the server wants arguments in headers too, as only its list tells.
        await list_tools(session, asyncio.get_running_loop().time() + LIST_S)
        return await self._sent(session)

    async def _sent(self, session: Session) -> dict[str, Any]:
        params = {"name": self.name, "arguments": clean_json(self.arguments), "_meta": self.meta}
        task = session.send("tools/call", params, self.exchange, self._report)
        return await answer(task, self.exchange, idle_s=self.idle_s, absolute_s=self.absolute_s)

    async def _report(self, progress: float, total: float | None, message: str | None) -> None:
        self.exchange.heard_at = asyncio.get_running_loop().time()
        if self.progress is not None:
            self.progress(Progress(progress, total, message or ""))


async def list_tools(session: Session, deadline: float) -> ToolList:
    """All pages before the `deadline` of the event loop's clock. Raises ServerFailed."""
    exchange = Exchange(session.principal, LIST_ROOM, LIST_S + READ_SLACK_S)
    pages = Pages(session.server.id, session.modern)
    cursor: str | None = ""
    while cursor is not None:
        params = {"cursor": cursor} if cursor else {}
        left = deadline - asyncio.get_running_loop().time()
        task = session.send("tools/list", params, exchange)
        try:
            page = await answer(task, exchange, idle_s=left, absolute_s=left)
        except ServerFailed as failed:
            if failed.code == METHOD_NOT_FOUND:
                return ToolList(())
            raise
        for raw in pages.tools_of(page):
            pages.add(raw)
            # Checking a schema takes a millisecond, and turns are streaming meanwhile.
            await asyncio.sleep(0)
        cursor = pages.next_cursor(page)
    listed = pages.result(session.instructions)
    session.learn(listed.tools)
    return listed


def failed_call(failed: ServerFailed) -> ToolResult:
    """What the model and the journal are told of a call without a usable answer."""
    reason = failed.message
    if failed.reason == "late":
        text = "The call could not leave in time and was not made."
        return ToolResult(text=text, is_error=True, outcome="cancelled")
    if failed.unknown:
        text = (
            f"The call was sent, but {reason}. It is unknown whether the tool ran: find out before"
            " calling it again."
        )
        return ToolResult(text=text, is_error=True, outcome="unknown")
    lead = "The server refused the call" if failed.reason == "rpc" else "The tool was not called"
    return ToolResult(text=f"{lead}: {reason}", is_error=True, outcome="failed")
