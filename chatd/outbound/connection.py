"""One HTTP/1.1 connection as a client uses it: an asyncio protocol over llhttp's parser."""

import asyncio
import select
from collections.abc import AsyncIterable
from typing import Any, cast

import httptools
import httpx2

MAX_OVERHEAD = 128 * 1024
"""Bytes of headers, of interim answers, or of framing without a byte of body between them."""
_PAUSE_AT = 256 * 1024
_PIECE = 256 * 1024


class Connection(asyncio.Protocol):
    """Carries one exchange at a time: `send`, `head`, `read` until it gives b"".

    Whoever leaves an exchange early calls `abort`. Time-outs are in seconds, None for ever, and
    raise httpx2's exceptions; so does everything else that fails.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._lost = False
        self._writable: asyncio.Future[None] | None = None
        self._paused_writing = False
        self.idle_since = 0.0
        self._parser: httptools.HttpResponseParser | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_since = 0.0
        self._timeout: float | None = None
        self._reset("", None)

    def _reset(self, method: str, timeout: float | None) -> None:
        self._method = method
        self._timeout = timeout
        self.status = 0
        self.reason = b""
        self.version = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self._begun = False
        self._complete = False
        self._keep = False
        self._until_eof = False
        self._sent = False
        self._overhead = 0
        self._error: Exception | None = None
        self._chunks: list[bytes] = []
        self._weight = 0
        self._paused_reading = False

    # The exchange

    async def send(
        self,
        method: str,
        head: bytes,
        body: AsyncIterable[bytes],
        *,
        chunked: bool,
        read_timeout: float | None,
        write_timeout: float | None,
    ) -> None:
        """Stops without an error when the answer comes before all is sent."""
        self._reset(method, read_timeout)
        if self._lost:
            raise httpx2.RemoteProtocolError("the server closed before it was asked")
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)
        pending = head
        async for data in body:
            if data:
                framed = b"%x\r\n%b\r\n" % (len(data), data) if chunked else data
                await self._write(pending + framed if pending else framed, write_timeout)
                pending = b""
            if self._begun:
                return
        pending += b"0\r\n\r\n" if chunked else b""
        if pending:
            await self._write(pending, write_timeout)
        self._sent = not self._begun

    async def head(self) -> None:
        """Waits until status and headers are there."""
        while not self._begun:
            if self._error is not None:
                raise self._error
            await self._wait()

    async def read(self) -> bytes:
        """All of the body that has arrived; b"" at its end."""
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._complete:
                return b""
            await self._wait()
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._weight = 0
        if self._paused_reading:
            self._paused_reading = False
            self._transport.resume_reading()
        return data

    def release(self) -> bool:
        """Ends the exchange; True when the connection can carry another one."""
        self._parser = None
        if self._paused_reading:
            self._paused_reading = False
            self._transport.resume_reading()
        reusable = self._complete and self._keep and self._sent and not self._lost
        if not reusable or self._error is not None or self._transport.is_closing():
            self.abort()
            return False
        self.idle_since = self._loop.time()
        self._drop_timer()
        return True

    def usable(self) -> bool:
        """False when the other side has closed, or has sent what nobody asked for."""
        if self._lost or self._transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def abort(self) -> None:
        self._parser = None
        self._drop_timer()
        if not self._lost:
            self._transport.abort()

    # Waiting

    async def _wait(self) -> None:
        self._waiting_since = self._loop.time()
        if self._timer is None and self._timeout is not None:
            self._timer = self._loop.call_later(self._timeout, self._look_at_clock)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _look_at_clock(self) -> None:
        """One timer serves many waits: it looks when the present one began."""
        self._timer = None
        if self._waiter is None or self._timeout is None:
            return
        late = self._waiting_since + self._timeout
        if self._loop.time() < late:
            self._timer = self._loop.call_at(late, self._look_at_clock)
        elif not self._waiter.done():
            self._waiter.set_exception(httpx2.ReadTimeout("the server sent nothing for too long"))

    def _drop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        for future in (self._waiter, self._writable):
            if future is not None and not future.done():
                future.set_result(None)

    async def _write(self, data: bytes, timeout: float | None) -> None:  # noqa: ASYNC109
        """Each piece has the whole time-out, so a slow server is no dead one."""
        for start in range(0, len(data), _PIECE):
            if self._begun or self._lost:
                return
            self._transport.write(data[start : start + _PIECE] if len(data) > _PIECE else data)
            if not self._paused_writing:
                continue
            self._writable = self._loop.create_future()
            try:
                async with asyncio.timeout(timeout):
                    await self._writable
            except TimeoutError as error:
                raise httpx2.WriteTimeout("the server did not take the request") from error
            finally:
                self._writable = None

    def _fail(self, error: Exception) -> None:
        if self._complete:
            # The answer is whole; only the connection is spoilt.
            self._keep = False
        elif self._error is None:
            self._error = error
        self._wake()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        self._paused_writing = True

    def resume_writing(self) -> None:
        self._paused_writing = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            self._transport.abort()
            return
        self._overhead += len(data)
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(httpx2.RemoteProtocolError(f"the answer is not HTTP/1.1: {error}"))
            return
        if self._overhead > MAX_OVERHEAD:
            self._fail(httpx2.RemoteProtocolError("the answer's headers are too large"))
        elif self._weight > _PAUSE_AT and not self._paused_reading:
            self._paused_reading = True
            self._transport.pause_reading()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._begun and self._until_eof and exc is None and self._error is None:
            self._complete = True
        elif exc is not None:
            self._fail(httpx2.ReadError(str(exc) or "the connection was lost"))
        elif self._begun:
            self._fail(httpx2.RemoteProtocolError("the server closed in the middle of its answer"))
        else:
            self._fail(httpx2.RemoteProtocolError("the server closed without an answer"))
        self._drop_timer()
        self._wake()

    # httptools

    def on_message_begin(self) -> None:
        if self._complete:
            self._keep = False

    def on_status(self, status: bytes) -> None:
        self.reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._begun:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        parser = cast(httptools.HttpResponseParser, self._parser)
        status = parser.get_status_code()
        if status < 200:
            self.reason = b""
            self.headers.clear()
            return
        if sum(len(name) + len(value) for name, value in self.headers) > MAX_OVERHEAD:
            self._fail(httpx2.RemoteProtocolError("the answer's headers are too large"))
            return
        self.status = status
        self.version = b"HTTP/" + parser.get_http_version().encode()
        names = {name.lower() for name, _ in self.headers}
        self._until_eof = not names & {b"content-length", b"transfer-encoding"}
        self._begun = True
        if self._method == "HEAD":
            self._finish(parser)
        self._wake()

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self._overhead = 0
            self._weight += len(body)
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        if self._begun and not self._complete:
            self._finish(cast(httptools.HttpResponseParser, self._parser))

    def _finish(self, parser: Any) -> None:
        self._complete = True
        self._keep = parser.should_keep_alive()
