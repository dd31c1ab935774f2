"""A frontend that watches a chat through a real stream, without a socket."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson

from chatd.api.sse import EventStream
from tests.frontend import Event, View
from tests.waiting import WITHIN_S, soon


class Watch:
    """One response being read: its events so far, and what a frontend makes of them."""

    def __init__(self, stream: EventStream, view: View | None = None) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.events: list[Event] = []
        self.view = view or View()
        self.comments = 0
        self.error: AssertionError | None = None
        self.ended = asyncio.Event()
        self.reading = asyncio.Event()
        """While it is not set, the reader takes nothing."""
        self.reading.set()
        self.stuck = False
        """Whether something is being sent to a reader that takes nothing."""
        self._gone = asyncio.Event()
        self._rest = b""
        self._stream = stream
        self._task = asyncio.create_task(self._run())

    def hang_up(self) -> None:
        self._gone.set()

    async def close(self) -> None:
        self.hang_up()
        self.reading.set()
        await self._task

    async def over(self) -> None:
        """Waits for the server to end the stream."""
        async with asyncio.timeout(WITHIN_S):
            await self.ended.wait()

    async def until(self, check: Callable[["Watch"], object]) -> None:
        """Waits for what must come; says what came instead."""
        try:
            await soon(lambda: check(self) or self.error)
        except TimeoutError:
            raise AssertionError([(e.name, e.data) for e in self.events[-5:]]) from None
        assert self.error is None, self.error

    async def _run(self) -> None:
        try:
            await self._stream({"type": "http"}, self._receive, self._send)
        finally:
            self.ended.set()

    async def _receive(self) -> Any:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            return
        self.stuck = not self.reading.is_set()
        await self.reading.wait()
        self.stuck = False
        *frames, self._rest = (self._rest + message["body"]).split(b"\n\n")
        for frame in frames:
            self._take(frame)

    def _take(self, frame: bytes) -> None:
        if frame.startswith(b":"):
            self.comments += 1
            _, _, frame = frame.partition(b"\n")
            if not frame:
                return
        fields = dict(line.split(b": ", 1) for line in frame.split(b"\n"))
        event = Event(
            fields[b"id"].decode(), fields[b"event"].decode(), orjson.loads(fields[b"data"])
        )
        self.events.append(event)
        try:
            self.view.take(event)
        except AssertionError as error:
            self.error = self.error or error


@asynccontextmanager
async def watching(stream: EventStream, view: View | None = None) -> AsyncGenerator[Watch]:
    watch = Watch(stream, view)
    try:
        yield watch
    finally:
        with suppress(asyncio.CancelledError):
            await watch.close()
