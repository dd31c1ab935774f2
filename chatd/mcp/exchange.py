"""One exchange with a server: on whose behalf, and how far it really got.

The SDK sends every message in its sender's context, so what runs far below a request finds the
request's own exchange in a context variable. Only the principal travels, never a token.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast

import httpx2

from chatd.core.servers import McpServer, Principal
from chatd.mcp.clock import Clock
from chatd.mcp.errors import ServerFailed
from chatd.mcp.signing import sign

Stage = Literal["waiting", "connecting", "sent"]

_SHORTEST_SECRET = 8


SESSION_ID = "mcp-session-id"
OWN = "chatd.exchange"
"""In a request's extensions: its own exchange, if somebody waits for the answer."""


def _nothing() -> None: ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """A server's 401 or 403: it has looked at no more of the request than its headers."""

    status: int
    challenges: tuple[str, ...]
    """`WWW-Authenticate`, line by line."""
    sent: Mapping[str, str] = field(repr=False)
    """What the source gave for the request."""
    again: bool
    """The second one: what the source gave after the first is refused too."""
    in_session: bool
    """The request named a session: it may be that which the credentials are not good for."""


class HeaderSource(Protocol):
    """Who knows the headers of a request: credentials and, where wanted, identity."""

    async def headers(self, server: McpServer, principal: Principal) -> Mapping[str, str]: ...

    async def refused(
        self, server: McpServer, principal: Principal, refusal: Refusal
    ) -> Mapping[str, str] | None:
        """The headers to send the same request with once more; None: leave it at that."""
        ...


@dataclass(slots=True, eq=False)
class Exchange:
    """What is known of one request (or one listing) below the SDK."""

    principal: Principal
    room: int | None = None
    """Bytes the server may still answer; None: no limit."""
    read_s: float | None = None
    """Seconds the server may be silent before the connection is given up."""
    leave_by: float | None = None
    """`time.monotonic()` after which the request must not leave any more."""
    stage: Stage = "waiting"
    status: int = 0
    """The last HTTP status; 0 before there was one."""
    in_session: bool = False
    """The request named a session that the server had given out."""
    failure: ServerFailed | None = None
    error: Exception | None = None
    """What our own side raised when it was asked or told something; ends the exchange."""
    over: bool = False
    """Nobody waits for it any more."""
    give_up: Callable[[], object] = _nothing
    """Stops waiting for an answer that the SDK will never report as missing."""
    secrets: set[str] = field(default_factory=set[str], repr=False)
    clock: Clock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = Clock(self.read_s)

    def begin(self, *, in_session: bool) -> None:
        """One more request of this exchange is about to be sent."""
        self.stage, self.status, self.failure = "waiting", 0, None
        self.in_session = in_session

    def failed(self, failure: ServerFailed) -> None:
        """Keeps the first failure of a request; a later one is its consequence."""
        self.failure = self.failure or failure

    def leave(self) -> None:
        """The request is about to leave. Raises ServerFailed when it is too late for that."""
        if self.leave_by is not None and time.monotonic() > self.leave_by:
            raise ServerFailed("late", "the call could not leave in time")
        self.stage = "sent"

    async def trace(self, event: str, _info: dict[str, Any]) -> None:
        """httpcore's `trace` extension: tells a request that left from one that never connected."""
        if event.endswith("send_request_headers.started"):
            self.leave()
        elif event == "connection.connect_tcp.started":
            self.stage = "connecting"


EXCHANGE: ContextVar[Exchange] = ContextVar("mcp_exchange")


class HeaderAuth(httpx2.Auth):
    """Asks for the headers of this server when a request is sent; without a principal none is.

    A request that was refused for its credentials was not executed: it goes out once more if there
    are others. With a signing secret each is signed.
    """

    def __init__(self, server: McpServer, source: HeaderSource) -> None:
        self._server = server
        self._source = source

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        exchange = EXCHANGE.get(None)
        if exchange is None:
            raise ServerFailed("protocol", "no principal for this request")
        who = exchange.principal
        headers = await self._source.headers(self._server, who)
        for again in (False, True):
            await self._prepare(request, headers, exchange)
            response = yield request
            if response.status_code not in (401, 403):
                return
            own: Exchange | None = request.extensions.get(OWN)
            in_session = SESSION_ID in request.headers or (own is not None and own.in_session)
            challenges = tuple(response.headers.get_list("www-authenticate"))
            refusal = Refusal(response.status_code, challenges, headers, again, in_session)
            others = await self._source.refused(self._server, who, refusal)
            if others is None or again:
                return
            headers = others
            response.stream = _Unread(response.stream)
            if own is not None:
                own.stage = "waiting"

    async def _prepare(
        self, request: httpx2.Request, headers: Mapping[str, str], exchange: Exchange
    ) -> None:
        who = exchange.principal
        request.headers.update(headers)
        told = {str(known) for known in (who.user_id, who.chat_id, who.subchat_id)}
        for value in headers.values():
            # Whatever its name is, a header is configured unless it says who asks.
            exchange.secrets.update(_secrets(value) - told)
        if self._server.signing_secret is not None:
            await sign(request, self._server.signing_secret.get_secret_value())


class _Unread(httpx2.AsyncByteStream):
    """The body of an answer that nobody wants: httpx2 would read all of it before it goes on."""

    def __init__(self, stream: object) -> None:
        self._stream = cast(httpx2.AsyncByteStream, stream)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        return
        yield b""

    async def aclose(self) -> None:
        await self._stream.aclose()


def _secrets(value: str) -> set[str]:
    """What must not come back in an answer: the value, and a token without its scheme."""
    return {part for part in (value, value.rpartition(" ")[2]) if len(part) >= _SHORTEST_SECRET}
