"""A server on loopback that answers byte by byte as a test says."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass
class Exchange:
    """One request as it arrived, and the way to answer it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def answer(self, body: bytes = b"", *, status: int = 200, headers: str = "") -> None:
        await self.send(
            f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body
        )

    async def begin(self, headers: str = "content-type: text/event-stream\r\n") -> None:
        """A chunked answer: go on with `chunk`, finish with `end`."""
        await self.send(f"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n{headers}\r\n".encode())

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        await self.send(b"0\r\n\r\n")

    async def until_closed(self) -> None:
        """Returns when the client has closed the connection."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass


Answer = Callable[[Exchange], Awaitable[None]]


class RawServer:
    """Each request goes to `answer`; when it closes the writer the connection ends."""

    def __init__(self, answer: Answer, *, tls: bool, bodies: bool = True) -> None:
        self.port = 0
        self.exchanges: list[Exchange] = []
        self.connections = 0
        self._answer = answer
        self._tls = tls
        self._bodies = bodies
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}"

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        task = asyncio.create_task(self._connected(reader, writer, self.connections))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before its first step closes nothing itself.
        task.add_done_callback(lambda _: writer.close())

    async def _connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        try:
            while not writer.is_closing():
                exchange = await _request(reader, writer, number, bodies=self._bodies)
                self.exchanges.append(exchange)
                await self._answer(exchange)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def stop(self) -> None:
        await some_rounds()  # what was being accepted becomes a connection, which can be closed
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()  # one that is closed would still wait for a client that reads
        await some_rounds()


async def some_rounds() -> None:
    """Of the event loop."""
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def serving(
    answer: Answer, *, tls: ssl.SSLContext | None = None, bodies: bool = True
) -> AsyncGenerator[RawServer]:
    """Without `bodies` a request is answered, and its connection ended, by its headers alone."""
    raw = RawServer(answer, tls=tls is not None, bodies=bodies)
    server = await asyncio.start_server(raw.accept, "127.0.0.1", 0, ssl=tls)
    raw.port = server.sockets[0].getsockname()[1]
    try:
        yield raw
    finally:
        server.close()
        await raw.stop()


async def _request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int, *, bodies: bool
) -> Exchange:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    headers = {name.lower(): value for name, value in headers.items()}
    body = await _body(reader, headers) if bodies else b""
    return Exchange(method, path, headers, body, connection, reader, writer)


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body
