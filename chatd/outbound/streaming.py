"""HTTP/1.1 for answers that stream: as PinnedTransport, at a third of its cost per read."""

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from typing import Any, cast

import httpx2

from chatd.outbound.connection import Connection
from chatd.outbound.dial import BlockedAddress, Resolver, dialable, resolve
from chatd.outbound.guard import Network, url_refusal
from chatd.outbound.limits import body_limit, too_large

_Origin = tuple[str, str, int]

_PORTS = {"http": 80, "https": 443}
_NAMES = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+\n)*")


class StreamingTransport(httpx2.AsyncBaseTransport):
    """HTTP/1.1 with kept-alive connections, one exchange each; never sends a request twice.

    Takes what PinnedTransport takes and holds to the same tests. An idle connection is closed
    after `keepalive` seconds, and looked at before it is used.
    """

    def __init__(
        self,
        allowed: Sequence[Network],
        tls: Callable[[], ssl.SSLContext],
        *,
        keepalive: float = 30.0,
        limit: int | None = None,
        resolver: Resolver = resolve,
    ) -> None:
        self._allowed = tuple(allowed)
        self._resolver = resolver
        self._context = tls
        self._keepalive = keepalive
        self._limit = limit
        self._idle: dict[_Origin, list[Connection]] = {}
        self._sweep: asyncio.TimerHandle | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        refusal = url_refusal(url)
        if refusal is not None:
            raise BlockedAddress(f"host {url.host!r}: {refusal}")
        head = _head(request)
        timeouts = cast(dict[str, float | None], request.extensions.get("timeout", {}))
        origin = (url.scheme, url.raw_host.decode(), url.port or _PORTS[url.scheme])
        connection = self._reused(origin)
        if connection is None:
            await _trace(request, "connection.connect_tcp.started")
            connection = await self._dial(origin, timeouts.get("connect"))
        try:
            await _trace(request, "http11.send_request_headers.started")
            await _send(connection, request, head, timeouts)
            await connection.head()
            body = _Body(self, origin, connection)
            response = httpx2.Response(
                status_code=connection.status,
                headers=connection.headers,
                stream=body,
                extensions={
                    "http_version": connection.version,
                    "reason_phrase": connection.reason,
                },
            )
            body.limit = body_limit(response.headers, self._limit)
        except BaseException:
            connection.abort()
            raise
        return response

    async def aclose(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connections in self._idle.values():
            for connection in connections:
                connection.abort()
        self._idle.clear()

    def keep(self, origin: _Origin, connection: Connection) -> None:
        """Ends the connection's exchange: it is kept if its answer is whole, else closed."""
        if not connection.release():
            return
        self._idle.setdefault(origin, []).append(connection)
        if self._sweep is None:
            loop = asyncio.get_running_loop()
            self._sweep = loop.call_later(self._keepalive, self._close_expired)

    def _reused(self, origin: _Origin) -> Connection | None:
        """The one that was used last: the others may then expire."""
        waiting = self._idle.get(origin)
        now = asyncio.get_running_loop().time()
        while waiting:
            connection = waiting.pop()
            if now - connection.idle_since < self._keepalive and connection.usable():
                return connection
            connection.abort()
        return None

    def _close_expired(self) -> None:
        self._sweep = None
        loop = asyncio.get_running_loop()
        expired = loop.time() - self._keepalive
        for origin, connections in list(self._idle.items()):
            for connection in connections:
                if connection.idle_since <= expired:
                    connection.abort()
            kept = [each for each in connections if each.idle_since > expired]
            if kept:
                self._idle[origin] = kept
            else:
                del self._idle[origin]
        oldest = [connections[0].idle_since for connections in self._idle.values()]
        if oldest:
            self._sweep = loop.call_at(min(oldest) + self._keepalive, self._close_expired)

    async def _dial(self, origin: _Origin, seconds: float | None) -> Connection:
        """Tries the checked addresses in order; each gets its share of what is left of the time."""
        scheme, host, port = origin
        loop = asyncio.get_running_loop()
        deadline = None if seconds is None else loop.time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                addresses = await dialable(
                    self._resolver, host, port, self._allowed, plain=scheme == "http"
                )
        except TimeoutError as error:
            raise httpx2.ConnectTimeout(f"resolving host {host!r} timed out") from error
        failure: Exception | None = None
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            share = None if deadline is None else max(deadline - loop.time(), 0.001) / left
            try:
                async with asyncio.timeout(share):
                    return await self._connect(origin, str(address))
            except TimeoutError:
                failure = httpx2.ConnectTimeout(f"connecting to host {host!r} timed out")
            except (OSError, ssl.CertificateError) as error:
                failure = httpx2.ConnectError(f"cannot connect to host {host!r}: {error}")
        raise failure or httpx2.ConnectError(f"cannot connect to host {host!r}")

    async def _connect(self, origin: _Origin, address: str) -> Connection:
        """The certificate is checked for the host's name, whatever the address."""
        scheme, host, port = origin
        options: dict[str, Any] = {}
        if scheme == "https":
            context = self._context()
            context.set_alpn_protocols(["http/1.1"])
            options = {"ssl": context, "server_hostname": host}
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, address, port, **options)
        return connection


class _Body(httpx2.AsyncByteStream):
    """Gives all that has arrived at a time, then hands the connection back."""

    def __init__(
        self, transport: StreamingTransport, origin: _Origin, connection: Connection
    ) -> None:
        self._transport = transport
        self._origin = origin
        self._connection: Connection | None = connection
        self.limit: int | None = None

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        connection = self._connection
        left = self.limit
        try:
            while connection is not None and (data := await connection.read()):
                if left is not None:
                    left -= len(data)
                    if left < 0:
                        raise too_large(self.limit or 0)
                yield data
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._transport.keep(self._origin, connection)


async def _trace(request: httpx2.Request, event: str) -> None:
    """httpcore's `trace` extension, of its events those that tell whether a request left."""
    trace = request.extensions.get("trace")
    if trace is not None:
        await trace(event, {})


def _head(request: httpx2.Request) -> bytes:
    """Raises LocalProtocolError for what would change the meaning of the bytes around it."""
    headers = request.headers.raw
    if not _NAMES.fullmatch(b"".join(name + b"\n" for name, _ in headers)):
        raise httpx2.LocalProtocolError("a header's name is not valid")
    lines = [request.method.encode() + b" " + request.url.raw_path + b" HTTP/1.1"]
    lines += [name + b": " + value for name, value in headers]
    head = b"\r\n".join([*lines, b"", b""])
    breaks = len(lines) + 1
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
        raise httpx2.LocalProtocolError("a header's value is not valid")
    return head


async def _send(
    connection: Connection,
    request: httpx2.Request,
    head: bytes,
    timeouts: dict[str, float | None],
) -> None:
    chunked = request.headers.get("transfer-encoding", "").lower() == "chunked"
    body = cast(AsyncIterable[bytes], request.stream)
    await connection.send(
        request.method,
        head,
        body if chunked else _counted(body, int(request.headers.get("content-length", "0"))),
        chunked=chunked,
        read_timeout=timeouts.get("read"),
        write_timeout=timeouts.get("write"),
    )


async def _counted(body: AsyncIterable[bytes], length: int) -> AsyncGenerator[bytes]:
    """Another length than the headers say would be read as the next request."""
    async for data in body:
        length -= len(data)
        if length < 0:
            break
        yield data
    if length:
        raise httpx2.LocalProtocolError("the request's body is not as long as it says")
