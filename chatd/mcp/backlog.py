"""How much a server may ask of us at once: the SDK starts a task for each request it reads."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context
from types import TracebackType
from typing import Any, Self

from mcp.client._transport import ReadStream, TransportStreams, WriteStream
from mcp.shared.message import SessionMessage
from mcp_types import (
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)

MAX_BACKLOG = 256
"""Requests of one session that are not answered yet. More are never read, nor answered."""


@asynccontextmanager
async def bounded(
    transport: AbstractAsyncContextManager[TransportStreams],
) -> AsyncGenerator[TransportStreams]:
    """The transport, with a bound on the server's own requests."""
    async with transport as (read, write):
        waiting: set[RequestId | None] = set()
        yield _Read(read, waiting), _Write(write, waiting)


class _Stream:
    """`waiting` are the ids of the server's requests that have no answer yet."""

    def __init__(self, inner: Any, waiting: set[RequestId | None]) -> None:
        self._inner = inner
        self._waiting = waiting

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool | None:
        return await self._inner.__aexit__(exc_type, exc_val, exc_tb)


class _Read(_Stream, ReadStream[SessionMessage | Exception]):
    @property
    def last_context(self) -> Context | None:
        """Of who sent the message: the SDK looks for it."""
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        while True:
            item = await self._inner.receive()
            if isinstance(item, Exception) or self._taken(item.message):
                return item

    def __aiter__(self) -> "_Read":
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        while True:
            item = await anext(self._inner)
            if isinstance(item, Exception) or self._taken(item.message):
                return item

    def _taken(self, message: JSONRPCMessage) -> bool:
        match message:
            case JSONRPCRequest(id=asked):
                if asked in self._waiting or len(self._waiting) >= MAX_BACKLOG:
                    return False
                self._waiting.add(asked)
            case JSONRPCNotification(method="notifications/cancelled", params=params):
                # The SDK does not answer what was taken back.
                taken_back = (params or {}).get("requestId")
                if isinstance(taken_back, str | int):
                    self._waiting.discard(taken_back)
            case _:
                pass
        return True


class _Write(_Stream, WriteStream[SessionMessage]):
    async def send(self, item: SessionMessage, /) -> None:
        try:
            await self._inner.send(item)
        finally:
            if isinstance(item.message, JSONRPCResponse | JSONRPCError):
                self._waiting.discard(item.message.id)
