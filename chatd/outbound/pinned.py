"""The stock transport: httpcore2's connection pool over a backend that dials checked addresses."""

import asyncio
import ssl
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    MutableMapping,
    Sequence,
)
from typing import Any, NoReturn, cast

import httpcore2
import httpx2

from chatd.outbound.dial import BlockedAddress, Resolver, dialable, resolve
from chatd.outbound.guard import Network, url_refusal
from chatd.outbound.limits import body_limit, too_large

_HTTPX2: dict[type[Exception], type[httpx2.TransportError]] = {
    httpcore2.ConnectTimeout: httpx2.ConnectTimeout,
    httpcore2.ReadTimeout: httpx2.ReadTimeout,
    httpcore2.WriteTimeout: httpx2.WriteTimeout,
    httpcore2.PoolTimeout: httpx2.PoolTimeout,
    httpcore2.TimeoutException: httpx2.TimeoutException,
    httpcore2.ConnectError: httpx2.ConnectError,
    httpcore2.ReadError: httpx2.ReadError,
    httpcore2.WriteError: httpx2.WriteError,
    httpcore2.NetworkError: httpx2.NetworkError,
    httpcore2.ProxyError: httpx2.ProxyError,
    httpcore2.UnsupportedProtocol: httpx2.UnsupportedProtocol,
    httpcore2.LocalProtocolError: httpx2.LocalProtocolError,
    httpcore2.RemoteProtocolError: httpx2.RemoteProtocolError,
    httpcore2.ProtocolError: httpx2.ProtocolError,
    OSError: httpx2.NetworkError,
}


class PinnedBackend(httpcore2.AsyncNetworkBackend):
    """Dials what was checked; URL, Host header, SNI and certificate check stay the host's."""

    def __init__(self, allowed: Sequence[Network], resolver: Resolver, *, plain: bool) -> None:
        self._allowed = tuple(allowed)
        self._resolver = resolver
        self._plain = plain
        self._sockets = cast(httpcore2.AsyncNetworkBackend, httpcore2.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore2's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Tries the addresses in order; each gets its share of what is left of the time-out."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        try:
            async with asyncio.timeout_at(deadline):
                addresses = await dialable(
                    self._resolver, host, port, self._allowed, plain=self._plain
                )
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(f"resolving host {host!r} timed out") from error
        failure: Exception | None = None
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            share = None if deadline is None else max(deadline - loop.time(), 0.001) / left
            try:
                return await self._sockets.connect_tcp(
                    str(address), port, share, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore2.ConnectError(f"cannot connect to host {host!r}")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore2's signature
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        raise httpcore2.UnsupportedProtocol("unix sockets are not allowed")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class PinnedTransport(httpx2.AsyncBaseTransport):
    """No retries, no proxies, no cap on connections.

    `tls` is asked for the shared context at the first https request, as building one takes 20 ms.
    `limit` bounds, in bytes, a response that is no event stream.
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
        self._pools: dict[str, httpcore2.AsyncConnectionPool] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        refusal = url_refusal(url)
        if refusal is not None:
            raise BlockedAddress(f"host {url.host!r}: {refusal}")
        outgoing = httpcore2.Request(
            method=request.method,
            url=httpcore2.URL(
                scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        try:
            answer = await self._pool(url.scheme).handle_async_request(outgoing)
        except Exception as error:
            raise_mapped(error)
        body = _Body(cast(AsyncIterable[bytes], answer.stream))
        response = httpx2.Response(
            status_code=answer.status,
            headers=answer.headers,
            stream=body,
            extensions=cast(MutableMapping[str, Any], answer.extensions),
        )
        try:
            body.limit = body_limit(response.headers, self._limit)
        except httpx2.RemoteProtocolError:
            await body.aclose()
            raise
        return response

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()

    def _pool(self, scheme: str) -> httpcore2.AsyncConnectionPool:
        pool = self._pools.get(scheme)
        if pool is None:
            plain = scheme == "http"
            pool = self._pools[scheme] = httpcore2.AsyncConnectionPool(
                ssl_context=None if plain else self._context(),
                max_connections=None,
                max_keepalive_connections=None,
                keepalive_expiry=self._keepalive,
                network_backend=PinnedBackend(self._allowed, self._resolver, plain=plain),
            )
        return pool


class _Body(httpx2.AsyncByteStream):
    """httpcore2's stream with httpx2's exceptions and a limit in bytes."""

    def __init__(self, stream: AsyncIterable[bytes]) -> None:
        self._stream = stream
        self.limit: int | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self.limit
        chunks = cast(AsyncGenerator[bytes], aiter(self._stream))
        try:
            async for chunk in chunks:
                if left is not None:
                    left -= len(chunk)
                    if left < 0:
                        raise too_large(self.limit or 0)
                yield chunk
        except Exception as error:
            raise_mapped(error)
        finally:
            await chunks.aclose()

    async def aclose(self) -> None:
        await cast(AsyncGenerator[bytes], self._stream).aclose()


def raise_mapped(error: Exception) -> NoReturn:
    """As httpx2's own exception where it is one of httpcore2 or the system, else unchanged."""
    if isinstance(error, httpx2.HTTPError):
        raise error
    for kind in type(error).__mro__:
        if kind in _HTTPX2:
            raise _HTTPX2[kind](str(error)) from error
    raise error
