"""What a server answers, bounded and made readable before the SDK's strict JSON parser sees it."""

import re
from collections.abc import AsyncIterable, AsyncIterator
from typing import Protocol, cast

import httpx2
import orjson
from mcp_types import CONNECTION_CLOSED

from chatd.mcp.errors import ServerFailed
from chatd.mcp.exchange import Exchange

_LONE = rb"u[dD][89a-fA-F][0-9a-fA-F]{2}"
_ESCAPE = re.compile(
    rb"(?P<fine>(?:[^\\]++|\\u[dD][89aAbB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|\\(?!" + _LONE + rb").)++)|\\" + _LONE,
    re.DOTALL,
)
"""All up to the next lone surrogate, in one piece: a server may send millions of escapes."""


MAX_EVENT = 16 * 1024 * 1024
"""Bytes of one server-sent event, or of what has no line end."""


class _Stream(Protocol):
    async def aclose(self) -> None: ...


class Body(httpx2.AsyncByteStream):
    """A response body that ends with an error of ours instead of raising one.

    An exception here would end the whole session and with it every other call on it. Events are
    handed on by complete lines and JSON as a whole: valid UTF-8, without lone surrogates.
    `request_id` is the JSON-RPC request's; without one there is nobody to tell of an error.
    """

    def __init__(
        self, stream: AsyncIterable[bytes], exchange: Exchange, *, events: bool, request_id: object
    ) -> None:
        self._stream = stream
        self._exchange = exchange
        self._events = events
        self._request_id = request_id

    async def __aiter__(self) -> AsyncIterator[bytes]:
        held = bytearray()
        chunks = aiter(self._stream)
        try:
            while (chunk := await self._next(chunks)) is not None:
                if not self._wanted(len(chunk), len(held)):
                    break
                cut = max(chunk.rfind(b"\n"), chunk.rfind(b"\r")) + 1 if self._events else 0
                if cut:
                    yield readable(bytes(held + chunk[:cut]))
                    held.clear()
                held += chunk[cut:]
        except (httpx2.TimeoutException, TimeoutError):
            self._exchange.failed(ServerFailed("timeout", "the answer stalled", unknown=True))
        except Exception:
            # Whatever it was, the connection is of no more use.
            self._exchange.failed(ServerFailed("closed", "the connection broke", unknown=True))
        if self._exchange.failure is not None:
            yield self._error()
        elif held:
            yield readable(bytes(held))

    async def aclose(self) -> None:
        await cast(_Stream, self._stream).aclose()

    async def _next(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        async with self._exchange.clock.reading():
            return await anext(chunks, None)

    def _wanted(self, size: int, held: int) -> bool:
        exchange = self._exchange
        if exchange.room is not None:
            exchange.room -= size
        if held > MAX_EVENT or (exchange.room is not None and exchange.room < 0):
            exchange.failed(ServerFailed("too_large", "the answer is too large", unknown=True))
        return not exchange.over and exchange.failure is None

    def _error(self) -> bytes:
        """What the SDK gets in place of the rest; the exchange says what it stands for."""
        if self._request_id is None:
            return b""
        error = {"code": CONNECTION_CLOSED, "message": "no usable answer"}
        data = orjson.dumps({"jsonrpc": "2.0", "id": self._request_id, "error": error})
        return b"\n\ndata: " + data + b"\n\n" if self._events else data


def readable(data: bytes) -> bytes:
    """The same JSON or event lines with U+FFFD for bad UTF-8 and for lone surrogate escapes."""
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            data = data.decode("utf-8", "replace").encode()
    if b"\\ud" not in data and b"\\uD" not in data:
        return data
    return _ESCAPE.sub(lambda found: found["fine"] or rb"\ufffd", data)
