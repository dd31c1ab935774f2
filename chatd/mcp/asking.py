"""The two questions a session is asked: which tools there are, and one call."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mcp_types import (
    HEADER_MISMATCH,
    LOG_LEVEL_META_KEY,
    METHOD_NOT_FOUND,
    URL_ELICITATION_REQUIRED,
)

from chatd.core.asking import InputRequired
from chatd.core.text import clean_json
from chatd.core.tools import JsonObject, ToolResult
from chatd.mcp.conversation import Conversation
from chatd.mcp.errors import FailureReason, ServerFailed
from chatd.mcp.exchange import Exchange
from chatd.mcp.listing import Pages, ToolList
from chatd.mcp.questions import Unaskable, input_required, pages_to_visit
from chatd.mcp.session import LOG_LEVEL, Session
from chatd.mcp.waiting import READ_SLACK_S, answer

LIST_S = 10.0
MAX_VISITS = 3
"""How often one call may want its user to go somewhere first."""
LIST_ROOM = 8 * 1024 * 1024
"""Bytes of all pages of one list together."""

_REFUSED: Mapping[FailureReason, Literal["account", "access"]] = {
    "auth_required": "account",
    "forbidden": "access",
}
_PAUSES_S = (0.05, 0.1, 0.2, *(0.25,) * 7)
"""Before a call is made again for a server that wants nothing but its own state back."""


@dataclass(slots=True)
class Call:
    """One call of a tool; made again only where the first provably did nothing, or was not all.

    `responses` and `state` are the latest round's (2026-07-28).
    """

    name: str
    arguments: JsonObject
    meta: JsonObject
    idle_s: float
    absolute_s: float
    exchange: Conversation
    responses: Mapping[str, JsonObject] | None = None
    state: str | None = None

    async def made(self, session: Session) -> JsonObject | InputRequired:
        """The raw result. Raises ServerFailed and Unaskable."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self.absolute_s
        for pause_s in _PAUSES_S:
            raw = await self._visited(session, ends_at - loop.time())
            if raw.get("resultType") != "input_required":
                return raw
            required = input_required(raw, self.exchange.secrets)
            if required.requests:
                return required
            # From here on the server knows the call: it goes on, however late that is.
            self.responses, self.state, self.exchange.leave_by = None, required.state, None
            await asyncio.sleep(pause_s)
        raise ServerFailed(
            "protocol", "the server wanted to be asked again and again", unknown=True
        )

    async def _visited(self, session: Session, absolute_s: float) -> JsonObject:
        """Before 2026-07-28 a server may refuse a call until its user has been to some page."""
        for _ in range(MAX_VISITS):
            try:
                return await self._answered(session, absolute_s)
            except ServerFailed as failed:
                pages = pages_to_visit(failed.data)
                if failed.code != URL_ELICITATION_REQUIRED or not pages or not self.exchange.elicit:
                    raise
            for page in pages:
                answer = await self.exchange.ask(page)
                if self.exchange.error is not None:
                    raise self.exchange.error
                if answer.action != "accept":
                    message = f"the user must visit a page first, and chose: {answer.action}"
                    raise ServerFailed("rpc", message)
            self.exchange.leave_by = None
        return await self._answered(session, absolute_s)

    async def _answered(self, session: Session, absolute_s: float) -> JsonObject:
        try:
            return await self._sent(session, absolute_s)
        except ServerFailed as failed:
            if failed.code != HEADER_MISMATCH:
                raise
        # Refused unread: the server wants arguments in headers too, as only its list tells.
        await list_tools(session, asyncio.get_running_loop().time() + LIST_S)
        return await self._sent(session, absolute_s)

    async def _sent(self, session: Session, absolute_s: float) -> JsonObject:
        params = self._params(session.modern)
        task = session.send("tools/call", params, self.exchange, self.exchange.report)
        session.hearing.follow(self.exchange, task)
        return await answer(task, self.exchange, idle_s=self.idle_s, absolute_s=absolute_s)

    def _params(self, modern: bool) -> JsonObject:
        meta = self.meta
        if modern and self.exchange.heard is not None:
            meta = meta | {LOG_LEVEL_META_KEY: LOG_LEVEL}
        params = {"name": self.name, "arguments": clean_json(self.arguments), "_meta": meta}
        if self.responses is not None:
            params["inputResponses"] = clean_json(dict(self.responses))
        if self.state is not None:
            params["requestState"] = self.state
        return params


async def list_tools(session: Session, deadline: float) -> ToolList:
    """All pages before the `deadline` of the event loop's clock. Raises ServerFailed."""
    exchange = Exchange(session.principal, LIST_ROOM, LIST_S + READ_SLACK_S)
    pages = Pages(session.server.id, session.modern, exchange.secrets)
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
            if asyncio.get_running_loop().time() > deadline:
                raise ServerFailed("timeout", "the list takes too long to read")
            pages.add(raw)
            # Checking a schema takes a millisecond, and turns are streaming meanwhile.
            await asyncio.sleep(0)
        cursor = pages.next_cursor(page)
    listed = pages.result(session.instructions)
    session.learn(listed.tools)
    return listed


def failed_call(failed: ServerFailed | Unaskable) -> ToolResult:
    """What the model and the journal are told of a call without a usable answer."""
    if isinstance(failed, Unaskable):
        text = f"The tool asked for {failed}. It did not finish."
        return ToolResult(text=text, is_error=True, outcome="failed")
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
    refused = _REFUSED.get(failed.reason)
    return ToolResult(f"{lead}: {reason}", is_error=True, outcome="failed", refused=refused)
