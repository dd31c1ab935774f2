"""An MCP server that does what a test says, byte by byte if need be, and tells what it heard."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import orjson
import uvicorn
from starlette.types import ASGIApp

from chatd.core.servers import McpServer, NoAuth, Principal
from chatd.core.tools import ToolResult
from chatd.dev.ports import listen
from chatd.mcp.pool import SessionPool
from tests.outbound.raw_server import Exchange, RawServer, some_rounds

ADD: dict[str, Any] = {
    "name": "add",
    "description": "Adds.",
    "inputSchema": {"type": "object", "properties": {"a": {"type": "integer"}}},
}


@dataclass(frozen=True)
class Heard:
    """One message of the client."""

    method: str
    params: dict[str, Any]
    headers: dict[str, str]
    message: dict[str, Any]


OK = {"content": [{"type": "text", "text": "ok"}]}

P = TypeVar("P", bound="Peer")
Say = Callable[[Exchange, dict[str, Any]], Awaitable[None]]


class Peer:
    """Speaks 2026-07-28 or, if not `modern`, the old handshake with a session."""

    def __init__(self, *, modern: bool = True, tools: Sequence[object] = (ADD,)) -> None:
        self.modern = modern
        self.tools = tools
        self.session = "session-1"
        self.says: dict[str, Say] = {}
        self.heard: list[Heard] = []
        self.port = 0
        self._news = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def count(self, method: str) -> int:
        return sum(heard.method == method for heard in self.heard)

    def last(self, method: str) -> Heard:
        return [heard for heard in self.heard if heard.method == method][-1]

    async def until(self, method: str, times: int = 1) -> None:
        """Returns when the method was heard so often."""
        async with self._news:
            await self._news.wait_for(lambda: self.count(method) >= times)

    async def reply(self, request_id: str) -> dict[str, Any]:
        """What the client answered to a request of ours, as soon as it does."""
        found: list[dict[str, Any]] = []

        def replied() -> bool:
            messages = [heard.message for heard in self.heard if heard.method == "POST"]
            found.extend(message for message in messages if message.get("id") == request_id)
            return bool(found)

        async with self._news:
            await self._news.wait_for(replied)
        return found[0]

    async def answer(self, exchange: Exchange) -> None:
        message: dict[str, Any] = orjson.loads(exchange.body) if exchange.body else {}
        method = message.get("method", exchange.method)
        async with self._news:
            self.heard.append(Heard(method, message.get("params", {}), exchange.headers, message))
            self._news.notify_all()
        say = self.says.get(method)
        if say is not None:
            await say(exchange, message)
        elif method in ("GET", "DELETE"):
            await exchange.answer(status=405)
        elif "id" not in message or "method" not in message:
            await exchange.answer(status=202)
        else:
            await self._answer(exchange, message, method)

    async def _answer(self, exchange: Exchange, message: dict[str, Any], method: str) -> None:
        match method:
            case "server/discover" if self.modern:
                await result(exchange, message, DISCOVERED)
            case "initialize" if not self.modern:
                session = f"mcp-session-id: {self.session}\r\n"
                await result(exchange, message, INITIALIZED, headers=session)
            case "tools/list":
                await result(exchange, message, {"tools": list(self.tools)})
            case "tools/call":
                await result(exchange, message, OK)
            case _:
                await error(exchange, message, -32601, "Method not found")


DISCOVERED = {
    "resultType": "complete",
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {"listChanged": True}},
    "instructions": "Be kind.",
    "ttlMs": 0,
    "cacheScope": "private",
}
INITIALIZED = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {"listChanged": True}},
    "serverInfo": {"name": "peer", "version": "1"},
    "instructions": "Be kind.",
}


async def result(
    exchange: Exchange, message: dict[str, Any], value: object, *, headers: str = ""
) -> None:
    body = orjson.dumps({"jsonrpc": "2.0", "id": message["id"], "result": value})
    await exchange.answer(body, headers=f"content-type: application/json\r\n{headers}")


async def error(
    exchange: Exchange, message: dict[str, Any], code: int, text: str, *, status: int = 200
) -> None:
    body = orjson.dumps(
        {"jsonrpc": "2.0", "id": message.get("id"), "error": {"code": code, "message": text}}
    )
    await exchange.answer(body, status=status, headers="content-type: application/json\r\n")


def event(message: dict[str, Any]) -> bytes:
    return b"event: message\ndata: " + orjson.dumps({"jsonrpc": "2.0", **message}) + b"\n\n"


@asynccontextmanager
async def running(peer: P) -> AsyncGenerator[P]:
    """On the port it had before, if it ran before."""
    raw = RawServer(peer.answer, tls=False)
    server = await asyncio.start_server(raw.accept, "127.0.0.1", peer.port)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        await raw.stop()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@asynccontextmanager
async def running_app(app: ASGIApp) -> AsyncGenerator[str]:
    """A real server in this event loop; gives its origin."""
    async with running_built(lambda _: app) as origin:
        yield origin


@asynccontextmanager
async def running_built(build: Callable[[str], ASGIApp]) -> AsyncGenerator[str]:
    """The same for an app that has to know its origin."""
    with listen() as bound:
        origin = f"http://127.0.0.1:{bound.getsockname()[1]}"
        config = uvicorn.Config(
            build(origin),
            log_config=None,
            log_level=None,
            ws="none",
            loop="none",
            timeout_graceful_shutdown=1,
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[bound]))
        await server.ready.wait()
        try:
            yield origin
        finally:
            server.should_exit = True
            await task
            for connection in list(server.server_state.connections):
                # Of a client that did not hang up within the second.
                connection.transport.abort()
            await some_rounds()


async def call(
    pool: SessionPool,
    server: McpServer,
    principal: Principal,
    name: str,
    arguments: dict[str, Any],
    **options: Any,
) -> ToolResult:
    """A call that wants no input."""
    answer = await pool.call_tool(server, principal, name, arguments, **options)
    assert isinstance(answer, ToolResult)
    return answer


def server_at(url: str, **changes: Any) -> McpServer:
    values: dict[str, Any] = {
        "id": UUID(int=1),
        "slug": "peer",
        "display_name": "Peer",
        "transport": "streamable_http",
        "url": url,
        "auth": NoAuth(),
        "version": 1,
    }
    return McpServer(**{**values, **changes})
