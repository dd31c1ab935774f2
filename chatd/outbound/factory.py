"""The only maker of HTTP clients that dial configured or discovered addresses."""

import asyncio
import ssl
from collections.abc import Sequence
from http.cookiejar import CookieJar
from typing import Any

import httpx2

from chatd.outbound.dial import resolve
from chatd.outbound.guard import Network, in_networks
from chatd.outbound.pinned import PinnedTransport
from chatd.outbound.streaming import StreamingTransport

USER_AGENT = "chatd"
CONNECT_SECONDS = 10.0
BODY_LIMIT = 32 * 1024 * 1024
"""Bytes of one answer that is no event stream; what a tool may hand on is capped far below."""
METADATA_LIMIT = 256 * 1024
"""Bytes of one answer of an authorization server: metadata, registration, tokens."""


class Outbound:
    """One per process: it owns the connection pools and the one TLS context.

    `model_allowed` and `mcp_allowed` are the networks that may be dialled although they are not
    public, and without encryption. `tls` replaces the system's trust (which follows SSL_CERT_FILE).
    Clients share their pool: closing one closes nothing, `aclose` here closes all. No client keeps
    cookies, follows redirects, reads proxy settings or sends anything twice.
    """

    def __init__(
        self,
        model_allowed: Sequence[Network] = (),
        mcp_allowed: Sequence[Network] = (),
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._mcp_allowed = tuple(mcp_allowed)
        self._tls = tls
        self._model = StreamingTransport(model_allowed, self._context, limit=BODY_LIMIT)
        self._mcp = StreamingTransport(mcp_allowed, self._context, limit=BODY_LIMIT)
        self._discovery: dict[tuple[Network, ...], PinnedTransport] = {}

    def model_client(self) -> httpx2.AsyncClient:
        """For model providers. The read time-out is the caller's business: a stream may be slow."""
        return _client(self._model, httpx2.Timeout(30.0, connect=CONNECT_SECONDS, pool=None))

    def mcp_client(self, *, auth: httpx2.Auth | None = None) -> httpx2.AsyncClient:
        """For MCP servers: answers of at most BODY_LIMIT bytes, event streams without limit."""
        timeout = httpx2.Timeout(30.0, connect=CONNECT_SECONDS, read=300.0, pool=None)
        return _client(self._mcp, timeout, auth=auth)

    async def discovery_client(self, configured_url: str) -> httpx2.AsyncClient:
        """For URLs that a server or its metadata names: authorization servers, token endpoints.

        They may lie in a network of the MCP allow-list only if the configured server itself does.
        Answers of at most METADATA_LIMIT bytes. Raises httpx2.ConnectError when the configured
        host has no address, httpx2.ConnectTimeout when no resolver says so in time,
        httpx2.InvalidURL.
        """
        url = httpx2.URL(configured_url)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                addresses = await resolve(url.host, url.port or 443)
        except TimeoutError:
            raise httpx2.ConnectTimeout(f"resolving {url.host!r} took too long") from None
        allowed = tuple(
            network
            for network in self._mcp_allowed
            if any(in_networks(address, (network,)) for address in addresses)
        )
        transport = self._discovery.get(allowed)
        if transport is None:
            # One pool per set of networks: a connection opened under a wider set is not shared.
            transport = PinnedTransport(allowed, self._context, limit=METADATA_LIMIT)
            self._discovery[allowed] = transport
        return _client(transport, httpx2.Timeout(CONNECT_SECONDS, pool=None))

    async def aclose(self) -> None:
        for transport in (self._model, self._mcp, *self._discovery.values()):
            await transport.aclose()

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = httpx2.create_ssl_context()
        return self._tls


def _client(
    transport: httpx2.AsyncBaseTransport,
    timeout: httpx2.Timeout,
    *,
    auth: httpx2.Auth | None = None,
) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        transport=_Shared(transport),
        auth=auth,
        timeout=timeout,
        cookies=_NoCookies(),
        headers={"user-agent": USER_AGENT, "accept-encoding": "identity"},
        follow_redirects=False,
        trust_env=False,
    )


class _Shared(httpx2.AsyncBaseTransport):
    """The pool of several clients: none of them may close it."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await self._transport.handle_async_request(request)


class _NoCookies(CookieJar):
    """A shared client must not carry one user's cookie into another user's request."""

    def extract_cookies(self, response: Any, request: Any) -> None: ...
