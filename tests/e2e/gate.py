"""A gate on the way to a server: what it answers can be held back, so that it is lost for sure."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from chatd.dev.ports import listen


class Gate:
    """Passes bytes both ways; while shut, requests still reach the server and no answer leaves."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connected(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.close())

    async def serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self.accept, sock=listen())
        port = server.sockets[0].getsockname()[1]
        self.url = self._target._replace(netloc=f"127.0.0.1:{port}").geturl()
        return server

    async def stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._target.hostname, self._target.port
        answers, requests = await asyncio.open_connection(host, port)
        try:
            await asyncio.gather(_pass(reader, requests), _pass(answers, writer, self._open))
        except ConnectionError:
            pass
        finally:
            requests.close()
            writer.close()


async def _pass(
    source: asyncio.StreamReader,
    target: asyncio.StreamWriter,
    when: asyncio.Event | None = None,
) -> None:
    while data := await source.read(65536):
        if when is not None:
            await when.wait()
        target.write(data)
        await target.drain()
    target.close()


@asynccontextmanager
async def gate_to(url: str) -> AsyncGenerator[Gate]:
    gate = Gate(url)
    server = await gate.serve()
    try:
        yield gate
    finally:
        server.close()
        await gate.stop()
