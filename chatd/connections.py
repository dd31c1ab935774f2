"""The connection log's writer: takes lines at once, writes them a little later, in batches."""

import asyncio
from collections import deque

from chatd import logs, telemetry
from chatd.core.connections import ConnectionEvent
from chatd.core.errors import Unavailable
from chatd.store.connections import add_connections
from chatd.store.db import Database

FLUSH_S = 1.0
BATCH = 100
ROOM = 10_000
"""Lines kept while PostgreSQL is away; what comes then is dropped and counted."""
CLOSE_S = 2.0

_log = logs.get(__name__)


class ConnectionLog:
    """One per process. `add` neither waits nor fails, so no call notices it."""

    def __init__(self, db: Database, process: str, *, room: int = ROOM) -> None:
        self._db = db
        self._process = process
        self._room = room
        self._lines: deque[ConnectionEvent] = deque()
        self._full = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="connection log")

    def add(self, event: ConnectionEvent) -> None:
        if len(self._lines) >= self._room:
            telemetry.CONNECTION_LINES_DROPPED.inc()
            return
        self._lines.append(event)
        if len(self._lines) >= BATCH:
            self._full.set()

    async def flush(self) -> None:
        """Write all there is. What could not be written because PostgreSQL is away stays.

        A commit whose outcome is unknown is written again: rather a line twice than none.
        """
        while self._lines:
            batch = [self._lines[place] for place in range(min(BATCH, len(self._lines)))]
            try:
                await add_connections(self._db, self._process, batch)
            except Unavailable:
                return
            except Exception as error:
                # Keeping what PostgreSQL refuses would hold up all lines after it.
                telemetry.CONNECTION_LINES_DROPPED.inc(len(batch))
                _log.error("connection log lost lines", error=type(error).__name__)
            for _ in batch:
                self._lines.popleft()

    async def close(self) -> None:
        """Writes what is left, unless that takes too long."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.flush()
        except TimeoutError:
            pass
        telemetry.CONNECTION_LINES_DROPPED.inc(len(self._lines))
        self._lines.clear()

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(FLUSH_S):
                    await self._full.wait()
            except TimeoutError:
                pass
            await self.flush()
            if len(self._lines) >= BATCH:
                # PostgreSQL is away: the full buffer must not make this spin.
                await asyncio.sleep(FLUSH_S)
            else:
                self._full.clear()
