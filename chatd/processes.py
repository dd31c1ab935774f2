"""That a process lives: its row in the database, its beat, its goodbye; and whose keys it has."""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self
from uuid import uuid4

from chatd import logs
from chatd.core.errors import Unavailable
from chatd.core.health import ProcessKind
from chatd.core.release import VERSION
from chatd.store import processes
from chatd.store.db import Database
from chatd.store.keys import OtherKey, register_keys
from chatd.store.secrets import KeyRing

BEAT_S = 5.0
GOODBYE_S = 2.0
"""For a word to a database that may be away: ending does not wait for it."""

log = logs.get("processes")


@dataclass(frozen=True, slots=True)
class Load:
    """Turns at once, and now."""

    capacity: int = 0
    running: int = 0


def new_process_id() -> str:
    """Host, process id, and a random part: a container's pid is always 1."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"


async def check_keys(url: str, keys: KeyRing) -> None:
    """Raises `OtherKey`. While the database is away the first beat finds out: see `Heartbeat`."""
    db = Database(url, pool_size=1, application="chatd start")
    try:
        async with asyncio.timeout(GOODBYE_S):
            others = await register_keys(db, keys.fingerprints)
    except (Unavailable, TimeoutError):
        return
    finally:
        await db.close()
    if others:
        raise OtherKey(others)


def end_process() -> None:
    """As an operator ends it: it drains."""
    os.kill(os.getpid(), signal.SIGTERM)


class Heartbeat:
    """A process's own row. No failure of the database ends anything but a beat.

    `end` is called once others have another key under one of our ids: what one of us writes, the
    others cannot read.
    """

    def __init__(
        self,
        db: Database,
        keys: KeyRing,
        kind: ProcessKind,
        process_id: str,
        *,
        load: Callable[[], Load] = Load,
        every_s: float = BEAT_S,
        end: Callable[[], None] = end_process,
    ) -> None:
        self._db = db
        self._fingerprints = keys.fingerprints
        self._kind: ProcessKind = kind
        self._id = process_id
        self._load = load
        self._every_s = every_s
        self._end = end
        self._ending = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._left = False

    async def __aenter__(self) -> Self:
        self._spawn(self._beat_forever())
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _quietly(lambda: processes.end(self._db, self._id))

    def goodbye(self) -> None:
        """At once when it begins to end; it still beats until it has ended."""
        if not self._left:
            self._left = True
            self._spawn(_quietly(lambda: processes.leave(self._db, self._id)))

    async def beat(self) -> None:
        """Raises `Unavailable`."""
        others = await register_keys(self._db, self._fingerprints)
        load = self._load()
        await processes.beat(
            self._db,
            self._id,
            self._kind,
            VERSION,
            capacity=load.capacity,
            running=load.running,
            key_ids=self._fingerprints.keys() - others,
        )
        if others and not self._ending:
            self._ending = True
            log.error("other processes have other keys under these ids", keys=sorted(others))
            self._end()

    async def _beat_forever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(BEAT_S):
                    await self.beat()
            except (Unavailable, TimeoutError):
                pass
            except Exception as error:
                log.exception("a beat failed", error=type(error).__name__)
            await asyncio.sleep(self._every_s)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _quietly(work: Callable[[], Awaitable[None]]) -> None:
    """Say it if somebody hears it; else the missing beat says it."""
    try:
        async with asyncio.timeout(GOODBYE_S):
            await work()
    except (Unavailable, TimeoutError):
        pass
    except Exception as error:
        log.exception("a goodbye failed", error=type(error).__name__)
