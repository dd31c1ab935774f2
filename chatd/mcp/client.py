"""The HTTP client as the SDK sees it: every failure of a request is an answer to that request.

The SDK sends a request in a task of its session's group, so an exception there ends the session and
every other call on it. Here a refused connection, say, becomes an error response, and the exchange
of the request keeps what really happened.
"""

import json
from collections.abc import AsyncIterable
from typing import Any, Self, cast

import httpx2
import orjson

from chatd.core.errors import NotDialled
from chatd.core.servers import Transport
from chatd.mcp.body import Body
from chatd.mcp.errors import ServerFailed, redacted
from chatd.mcp.exchange import EXCHANGE, OWN, SESSION_ID, Exchange

CONNECT_S = 10.0
WRITE_S = 30.0
NOTIFY_S = 5.0
"""How long a server may take to accept a notification: others of its session wait behind it."""

_ID = "chatd.request_id"


class AnsweringClient:
    """Wraps the client of one session; has the few members of `httpx2.AsyncClient` the SDK uses."""

    def __init__(self, client: httpx2.AsyncClient, transport: Transport) -> None:
        self._client = client
        self._transport = transport
        self.max_redirects = client.max_redirects

    def as_client(self) -> httpx2.AsyncClient:
        return cast(httpx2.AsyncClient, self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    def build_request(self, method: str, url: httpx2.URL | str, **kwargs: Any) -> httpx2.Request:
        message: dict[str, Any] = kwargs.pop("json", None) or {}
        asks = "id" in message and "method" in message
        if message:
            kwargs["content"] = _encoded(message)
            headers = kwargs.pop("headers", None) or {}
            kwargs["headers"] = {"content-type": "application/json"} | headers
        # What asks has a clock of its own, which stands still while a person is asked.
        read_s = None if asks or method == "GET" else NOTIFY_S
        timeout = httpx2.Timeout(WRITE_S, connect=CONNECT_S, read=read_s, pool=None)
        request = self._client.build_request(method, url, timeout=timeout, **kwargs)
        if asks:
            request.extensions[_ID] = message["id"]
        return request

    async def send(self, request: httpx2.Request, **kwargs: Any) -> httpx2.Response:
        exchange = EXCHANGE.get()
        if request.method != "POST":
            return await self._other(request, exchange, kwargs)
        if _ID not in request.extensions:
            # A notification or a reply: what becomes of it says nothing of the request.
            exchange = Exchange(exchange.principal)
        return await self._post(request, exchange, kwargs)

    async def _post(
        self, request: httpx2.Request, exchange: Exchange, kwargs: dict[str, Any]
    ) -> httpx2.Response:
        exchange.begin(in_session=self._transport == "sse" or SESSION_ID in request.headers)
        request.extensions["trace"] = exchange.trace
        request.extensions[OWN] = exchange
        try:
            async with exchange.clock.reading():
                response = await self._client.send(request, **kwargs)
        except Exception as error:
            exchange.failed(_failure(error, exchange))
            return self._instead(httpx2.Response(502, request=request), exchange)
        exchange.status = response.status_code
        response.stream = _body(response, exchange, request.extensions.get(_ID))
        if response.status_code >= 400:
            return self._instead(response, exchange)
        return response

    def _instead(self, response: httpx2.Response, exchange: Exchange) -> httpx2.Response:
        """Over HTTP+SSE answers come by another way, so that one for a lost request never comes."""
        if self._transport == "streamable_http":
            return response
        exchange.give_up()
        return httpx2.Response(202, request=response.request)

    async def _other(
        self, request: httpx2.Request, exchange: Exchange, kwargs: dict[str, Any]
    ) -> httpx2.Response:
        """The stream for the server's own messages, and the end of a session."""
        if exchange.over:
            raise httpx2.LocalProtocolError("nobody waits for this any more")
        try:
            response = await self._client.send(request, **kwargs)
        except Exception as error:
            exchange.failed(_failure(error, exchange))
            raise
        if self._transport == "sse":
            exchange.status = response.status_code
        response.stream = _body(response, Exchange(exchange.principal), None)
        return response


def _failure(error: Exception, exchange: Exchange) -> ServerFailed:
    sent = exchange.stage == "sent"
    match error:
        case ServerFailed():
            return error
        case NotDialled():
            return ServerFailed("blocked", redacted(str(error)))
        case httpx2.ConnectTimeout():
            return ServerFailed("timeout", "no connection in time")
        case httpx2.ConnectError():
            return ServerFailed("refused", "no connection")
        case httpx2.TimeoutException() | TimeoutError():
            return ServerFailed("timeout", "no answer in time", unknown=sent)
        case httpx2.TransportError():
            return ServerFailed("closed", "the connection broke", unknown=sent)
        case _:
            return ServerFailed("protocol", "the request could not be sent", unknown=sent)


def _encoded(message: object) -> bytes:
    try:
        return orjson.dumps(message)
    except TypeError:
        # Integers beyond 64 bits and lone surrogates.
        return json.dumps(message).encode()


def _body(response: httpx2.Response, exchange: Exchange, request_id: object) -> Body:
    kind = response.headers.get("content-type", "").lower()
    return Body(
        cast(AsyncIterable[bytes], response.stream),
        exchange,
        events=kind.startswith("text/event-stream"),
        request_id=request_id,
    )
