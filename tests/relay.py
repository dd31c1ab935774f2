"""A network link that a test can break: the client loses it, the server need not notice."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

_CHUNK = 65_536


class Relay:
    """Passes bytes between its clients and one server."""

    def __init__(self, host: str, port: int) -> None:
        self._to = host, port
        self._clients: set[asyncio.StreamWriter] = set()
        self._servers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lose_answers = False
        self._refuses = False
        self._open = asyncio.Event()
        self._open.set()
        self.refused = 0
        """Connections turned away so far."""

    def cut(self) -> None:
        """Clients find their connections broken; the server's ends stay open."""
        for client in self._clients:
            client.transport.abort()
        self._clients.clear()

    def refuse(self) -> None:
        """No connection stays, and no new one is taken."""
        self._refuses = True
        self.cut()

    def accept(self) -> None:
        self._refuses = False

    def go_silent(self) -> None:
        """Nothing passes any more on the connections there are, and nobody is told; new ones do."""
        self._open.clear()
        self._open = asyncio.Event()
        self._open.set()

    def lose_next_answer(self) -> None:
        """What the server says next is lost, with the connection it was said on."""
        self._lose_answers = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            self.refused += 1
            writer.transport.abort()
            return
        upstream, server = await asyncio.open_connection(*self._to)
        self._clients.add(writer)
        self._servers.add(server)
        is_open = self._open
        for passing in (
            self._pass(reader, server, is_open),
            self._answer(upstream, writer, is_open),
        ):
            task = asyncio.create_task(passing)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._servers:
            server.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, is_open: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                await is_open.wait()
                server.write(chunk)
                await server.drain()
            server.close()  # an orderly end; a cut one is an error, and the server hears nothing

    async def _answer(
        self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter, is_open: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while chunk := await upstream.read(_CHUNK):
                await is_open.wait()
                if self._lose_answers:
                    self._lose_answers = False
                    self._clients.discard(writer)
                    writer.transport.abort()
                    return
                writer.write(chunk)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def relay_to(url: str) -> AsyncGenerator[tuple[Relay, str]]:
    """A relay to the server of this URL, and the URL through it."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    relay = Relay(parts.hostname, parts.port)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield relay, url.replace(f":{parts.port}", f":{port}")
    finally:
        server.close()
        await relay.close()
