"""What a worker asks of MCP servers: their tools, and calls. Nothing here repeats a call."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar
from uuid import UUID

import httpx2

from chatd.core.asking import Elicit, InputRequired, LogLine, Progress
from chatd.core.servers import McpServer, Principal, ServiceAuth, UserAuth
from chatd.core.tools import JsonObject, ToolResult
from chatd.mcp.asking import LIST_S, Call, failed_call, list_tools
from chatd.mcp.connections import Tell
from chatd.mcp.conversation import Conversation
from chatd.mcp.errors import ServerFailed
from chatd.mcp.exchange import HeaderSource
from chatd.mcp.listing import ToolList
from chatd.mcp.probing import Probed
from chatd.mcp.questions import Unaskable
from chatd.mcp.results import tool_result
from chatd.mcp.session import Session
from chatd.mcp.sessions import Keep, Sessions
from chatd.mcp.waiting import READ_SLACK_S

CALL_ROOM = 16 * 1024 * 1024
"""Bytes of one answer to a call."""
MIN_ABSOLUTE_S = 600.0
CONNECT_S = 15.0
CLOSE_S = 2.0

_AGAIN = frozenset({"refused", "closed", "session_unknown"})
"""With a new session this may work; what was asked for has not happened."""

_SDK_LOGGERS = ("mcp.client", "mcp.shared", "client")

T = TypeVar("T")


class SessionPool:
    """One per process. `http_client` makes a client on a shared connection pool, with this auth.

    `tell` hears of each connect and disconnect. Sessions close after `idle_s` without use and,
    least recently used first, above `limit`.
    """

    def __init__(
        self,
        http_client: Callable[[httpx2.Auth], httpx2.AsyncClient],
        headers: HeaderSource,
        *,
        tell: Tell | None = None,
        idle_s: float = 300.0,
        limit: int = 256,
    ) -> None:
        for name in _SDK_LOGGERS:
            # They quote what servers send, with tracebacks; our outcomes say it without.
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._headers = headers
        self._watcher: Callable[[McpServer, Principal], None] | None = None
        self._sessions = Sessions(
            http_client,
            headers,
            changed=self._changed,
            tell=tell,
            idle_s=idle_s,
            limit=limit,
            connect_s=CONNECT_S,
        )

    def watch(self, changed: Callable[[McpServer, Principal], None]) -> None:
        """`changed` hears of every server that says its tools changed, for this principal."""
        self._watcher = changed

    async def connect(self, server: McpServer, principal: Principal) -> ToolResult | None:
        """Opens the session and sees to its credentials, which may have to be renewed, so that a
        call can leave at once; if that fails, the call's result."""

        async def nothing(_: Session) -> None: ...

        try:
            await self._credentials(server, principal, CONNECT_S)
            await self._with_session(server, principal, CONNECT_S, nothing)
        except ServerFailed as failed:
            return failed_call(failed)
        return None

    async def list_tools(
        self, server: McpServer, principal: Principal, *, timeout_s: float = LIST_S
    ) -> ToolList:
        """All pages, in the server's order; the time includes connecting, not the renewal of a
        token. Raises ServerFailed."""
        await self._credentials(server, principal, timeout_s)
        deadline = asyncio.get_running_loop().time() + timeout_s

        async def attempt(session: Session) -> ToolList:
            return await list_tools(session, deadline)

        return await self._with_session(server, principal, timeout_s, attempt)

    async def probe(self, server: McpServer, principal: Principal, *, timeout_s: float) -> Probed:
        """Connects anew, past every session there is, and lists the tools. Raises ServerFailed."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        async with self._sessions.fresh(server, principal, within_s=timeout_s) as session:
            return Probed.of(session, await list_tools(session, deadline))

    async def call_tool(
        self,
        server: McpServer,
        principal: Principal,
        name: str,
        arguments: JsonObject,
        *,
        timeout_s: float | None = None,
        absolute_s: float | None = None,
        elicit: Elicit | None = None,
        progress: Callable[[Progress], None] | None = None,
        heard: Callable[[LogLine], None] | None = None,
        responses: Mapping[str, JsonObject] | None = None,
        request_state: str | None = None,
        meta: Mapping[str, str] | None = None,
        leave_within_s: float | None = None,
    ) -> ToolResult | InputRequired:
        """The server's answer, or why there is none: never raises for what a server does.

        `timeout_s` (default: the server's own) counts from the server's last sign, `absolute_s`
        (default: ten times that, at least ten minutes) from the start, neither while `elicit` runs;
        without it questions are answered with `cancel`. What the callbacks raise ends the call and
        is raised here. `responses` and `request_state` answer the `InputRequired` of the same call.
        The text is as long as the server made it. Outcomes: `cancelled` if it could not leave
        within `leave_within_s`, `unknown` once it left and no usable answer came.
        """
        idle_s = timeout_s or server.tool_timeout_s
        total_s = absolute_s or max(10 * idle_s, MIN_ABSOLUTE_S)
        read_s = idle_s + READ_SLACK_S
        exchange = Conversation(
            principal, CALL_ROOM, read_s, elicit=elicit, progress=progress, heard=heard
        )
        if leave_within_s is not None:
            exchange.leave_by = time.monotonic() + leave_within_s
        call = Call(name, arguments, dict(meta or {}), idle_s, total_s, exchange)
        call.responses, call.state = responses, request_state
        return await self._called(server, call)

    @property
    def users(self) -> frozenset[UUID]:
        """For whom sessions are open that serve nobody else."""
        return self._sessions.users

    def drop(self, keep: Keep) -> None:
        """Give no session to anybody any more that `keep` does not keep."""
        self._sessions.drop(keep)

    async def aclose(self) -> None:
        await self._sessions.aclose(within_s=CLOSE_S)

    async def _credentials(self, server: McpServer, principal: Principal, within_s: float) -> None:
        """Before anything is asked of the server: it is not to blame for a token that takes long,
        and a call that has to leave soon may not wait for one. Raises ServerFailed."""
        try:
            async with asyncio.timeout(within_s):
                await self._headers.headers(server, principal)
        except TimeoutError:
            message = "its credentials could not be had in time"
            raise ServerFailed("unavailable", message) from None

    async def _called(self, server: McpServer, call: Call) -> ToolResult | InputRequired:
        try:
            raw = await self._with_session(server, call.exchange.principal, call.idle_s, call.made)
        except (ServerFailed, Unaskable) as failed:
            return failed_call(failed)
        if isinstance(raw, InputRequired):
            return raw
        return tool_result(raw, secrets=call.exchange.secrets)

    async def _with_session(
        self,
        server: McpServer,
        principal: Principal,
        within_s: float,
        attempt: Callable[[Session], Awaitable[T]],
    ) -> T:
        """Runs it once more, in a new session, if the first provably did nothing."""
        try:
            return await self._attempt(server, principal, within_s, attempt)
        except ServerFailed as failed:
            if failed.unknown or not _of_session(server, failed):
                raise
        return await self._attempt(server, principal, within_s, attempt)

    async def _attempt(
        self,
        server: McpServer,
        principal: Principal,
        within_s: float,
        attempt: Callable[[Session], Awaitable[T]],
    ) -> T:
        async with self._sessions.use(server, principal, within_s=within_s) as session:
            try:
                return await attempt(session)
            except ServerFailed as failed:
                if _of_session(server, failed):
                    self._sessions.retire(session)
                raise

    def _changed(self, server: McpServer, principal: Principal) -> None:
        if self._watcher is not None:
            self._watcher(server, principal)


def _of_session(server: McpServer, failed: ServerFailed) -> bool:
    """Some servers tie a session to the token that opened it, which is renewed meanwhile."""
    if failed.reason == "auth_required" and isinstance(server.auth, UserAuth | ServiceAuth):
        return failed.in_session
    return failed.reason in _AGAIN
