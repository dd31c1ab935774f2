"""One session with one server for one principal, owned by one task from beginning to end."""

import asyncio
import contextvars
import logging
from collections.abc import Callable
from typing import Any

import httpx2
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import McpHttpClientFactory
from mcp.shared.dispatcher import CallOptions, ProgressFnT
from mcp.shared.inbound import (
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    encode_header_value,
    mcp_param_headers,
    x_mcp_header_map,
)
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    PROTOCOL_VERSION_META_KEY,
    Implementation,
    ServerNotification,
    ToolListChangedNotification,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from chatd.core.release import VERSION
from chatd.core.servers import McpServer, Principal
from chatd.core.tools import JsonObject, ToolSpec
from chatd.mcp.backlog import bounded
from chatd.mcp.body import MAX_EVENT
from chatd.mcp.client import AnsweringClient
from chatd.mcp.errors import ServerFailed
from chatd.mcp.exchange import EXCHANGE, Exchange
from chatd.mcp.hearing import Hearing
from chatd.mcp.verdict import verdict
from chatd.mcp.waiting import answer

HANDSHAKE_ROOM = 1024 * 1024
HANDSHAKE_READ_S = 15.0
LOG_LEVEL = "info"
"""From which on servers tell what they log about a call."""


CLIENT_INFO = Implementation(name="chatd", version=VERSION)

_ENVELOPE: JsonObject = {
    CLIENT_INFO_META_KEY: CLIENT_INFO.model_dump(by_alias=True, exclude_none=True),
    CLIENT_CAPABILITIES_META_KEY: {"elicitation": {"form": {}, "url": {}}},
}
"""What 2026-07-28 wants in every request, beside the version."""

log = logging.getLogger(__name__)


class Session:
    """Connects when started; every request waits for `ready`. Requests may come from any task.

    `changed` is called when the server says that its tools changed. `secrets` are what connecting
    has sent; the server may repeat them in all that it says of itself and later.
    """

    _client: Client

    def __init__(
        self,
        server: McpServer,
        principal: Principal,
        client: AnsweringClient,
        changed: Callable[[], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.server = server
        self.principal = principal
        self.ready: asyncio.Future[None] = loop.create_future()
        self.ready.add_done_callback(_seen)
        self.users = 0
        self.used_at = loop.time()
        self.retired = False
        self.tool_count: int | None = None
        self.hearing = Hearing(server.transport)
        self.secrets: set[str] = set()
        self._http = client
        self._changed = changed
        self._closing = asyncio.Event()
        self._header_maps: dict[str, dict[tuple[str, ...], str]] = {}
        # An empty context: the session outlives the turn that happens to open it.
        self.owner = asyncio.create_task(
            self._own(), name=f"mcp session {server.slug}", context=contextvars.Context()
        )

    @property
    def over(self) -> bool:
        return self.owner.done() or self._closing.is_set()

    @property
    def modern(self) -> bool:
        return self._client.protocol_version in MODERN_PROTOCOL_VERSIONS

    @property
    def protocol_version(self) -> str:
        return self._client.protocol_version

    @property
    def server_info(self) -> Implementation | None:
        return self._client.server_info

    @property
    def instructions(self) -> str | None:
        return self._client.instructions

    def close(self) -> None:
        """Asks the owner to leave; does not wait for it."""
        self._closing.set()
        self._stop_connecting()

    def give_up(self) -> None:
        """Ends an attempt to connect that takes too long."""
        if not self.ready.done():
            self.owner.cancel()
            self.ready.set_exception(ServerFailed("timeout", "no connection in time"))

    def send(
        self,
        method: str,
        params: JsonObject,
        exchange: Exchange,
        progress: ProgressFnT | None = None,
    ) -> asyncio.Task[dict[str, Any]]:
        """The request in a task of its own that may be abandoned; gives the raw result.

        Below the SDK's typed calls on purpose: they refuse whole results for one sloppy entry, list
        tools behind our back and lose results that break their output schema.
        """
        context = contextvars.copy_context()
        context.run(EXCHANGE.set, exchange)
        exchange.secrets.update(self.secrets)
        options: CallOptions = {"headers": self._headers(method, params)}
        if progress is not None:
            options["on_progress"] = progress
        dispatcher = self._client.session._dispatcher  # pyright: ignore[reportPrivateUsage]
        request = dispatcher.send_raw_request(method, self._enveloped(params), options)
        task = asyncio.create_task(request, context=context)
        exchange.give_up = task.cancel
        return task

    def learn(self, tools: tuple[ToolSpec, ...]) -> None:
        """Which arguments the server wants in headers too (2026-07-28, `x-mcp-header`)."""
        self.tool_count = len(tools)
        maps = {tool.name: x_mcp_header_map(tool.input_schema) for tool in tools}
        self._header_maps = {name: found for name, found in maps.items() if found}

    def _enveloped(self, params: JsonObject) -> JsonObject:
        if not self.modern:
            return params
        version = {PROTOCOL_VERSION_META_KEY: self._client.protocol_version}
        return params | {"_meta": params.get("_meta", {}) | _ENVELOPE | version}

    def _headers(self, method: str, params: JsonObject) -> dict[str, str]:
        headers = {MCP_PROTOCOL_VERSION_HEADER: self._client.protocol_version}
        if self.modern:
            headers[MCP_METHOD_HEADER] = method
            name = params.get("name")
            if isinstance(name, str):
                headers[MCP_NAME_HEADER] = encode_header_value(name)
                wanted = self._header_maps.get(name, {})
                headers |= mcp_param_headers(wanted, params.get("arguments", {}))
        return headers

    async def _own(self) -> None:
        """Enters, waits and leaves in this one task, as the SDK's cancel scopes demand."""
        exchange = Exchange(self.principal, HANDSHAKE_ROOM, HANDSHAKE_READ_S, secrets=self.secrets)
        exchange.give_up = self._stop_connecting
        EXCHANGE.set(exchange)
        try:
            await self._live(exchange)
        except (Exception, BaseExceptionGroup, asyncio.CancelledError) as error:
            failure = verdict(error, exchange)
            log.debug("MCP session with %s ended: %s", self.server.slug, failure.message)
            if not self.ready.done():
                self.ready.set_exception(failure)
        finally:
            self._closing.set()

    def _stop_connecting(self) -> None:
        if not self.ready.done():
            self.owner.cancel()

    async def _live(self, exchange: Exchange) -> None:
        async with self._http, self._connected() as client:
            self._client = client
            exchange.room = None
            self.ready.set_result(None)
            listener = asyncio.create_task(self._subscribe(client))
            try:
                await self._closing.wait()
            finally:
                listener.cancel()

    def _connected(self) -> Client:
        http = self._http.as_client()
        url = self.server.url
        if self.server.transport == "sse":
            transport = sse_client(url, httpx_client_factory=_always(http))
        else:
            transport = streamable_http_client(url, http_client=http, max_sse_event_size=MAX_EVENT)
        return Client(
            bounded(transport),
            # The old transport ended before the new protocol began; a probe could only hang.
            mode="legacy" if self.server.transport == "sse" else "auto",
            client_info=CLIENT_INFO,
            message_handler=self._heard,
            elicitation_callback=self.hearing.elicit,
            logging_callback=self.hearing.log,
            cache=None,
        )

    async def _heard(self, message: ServerNotification | Exception) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._changed()

    async def _subscribe(self, client: Client) -> None:
        """Asks for what a server tells only when asked. Nothing depends on it."""
        declared = client.server_capabilities
        try:
            if not self.modern and declared.logging is not None:
                await self._set_level()
            elif self.modern and declared.tools is not None and declared.tools.list_changed:
                await self._listen(client)
        except Exception as error:
            # A list of tools is then simply as fresh as its time to live.
            kind = type(error).__name__
            log.debug("MCP server %s does not tell what is new: %s", self.server.slug, kind)

    async def _set_level(self) -> None:
        exchange = Exchange(self.principal, HANDSHAKE_ROOM, HANDSHAKE_READ_S)
        task = self.send("logging/setLevel", {"level": LOG_LEVEL}, exchange)
        await answer(task, exchange, idle_s=HANDSHAKE_READ_S, absolute_s=HANDSHAKE_READ_S)

    async def _listen(self, client: Client) -> None:
        """A modern server tells of changes on a stream that was asked for."""
        EXCHANGE.set(Exchange(self.principal))
        async with client.listen(tools_list_changed=True) as changes:
            async for _ in changes:
                self._changed()


def _always(client: httpx2.AsyncClient) -> McpHttpClientFactory:
    def factory(
        headers: dict[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,
        auth: httpx2.Auth | None = None,
    ) -> httpx2.AsyncClient:
        return client

    return factory


def _seen(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()
