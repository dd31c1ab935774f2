"""Frames on their way to one reader, however they are sent: heartbeat, revocation, and the end."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

from chatd import logs, telemetry
from chatd.api.frames import COMMENT
from chatd.api.permits import Permit

HEARTBEAT_S = 15.0
SEND_TIMEOUT_S = 20.0
"""A reader that takes nothing for so long is dropped."""

log = logs.get(__name__)

Put = Callable[[bytes, bool], Awaitable[None]]
"""Sends some frames; whether more come after them."""


class Ending(Enum):
    """Why a flow ended."""

    OVER = auto()
    REVOKED = auto()
    SLOW = auto()
    DRAINING = auto()
    HUNG_UP = auto()
    SPOKE = auto()
    """The client sent something on a stream that goes one way."""


class Source(Protocol):
    """Where frames come from."""

    @property
    def finished(self) -> bool: ...

    @property
    def overrun(self) -> bool:
        """The reader was too slow: something is missing."""
        ...

    @property
    def closing(self) -> bool:
        """The process is going away."""
        ...

    async def next(self, wait_s: float) -> bytes:
        """The frames of what comes next; empty when that is nothing, or nothing came in time."""
        ...

    def revoked(self) -> bytes:
        """The last frame of a reader who may not go on."""
        ...

    def nudge(self) -> None:
        """Let `next` answer at once."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Pace:
    heartbeat_s: float = HEARTBEAT_S
    send_timeout_s: float = SEND_TIMEOUT_S


class Flow:
    """What one reader gets: `first`, then what the source has, until one of them ends it."""

    def __init__(self, source: Source, permit: Permit, first: bytes, pace: Pace) -> None:
        self._source = source
        self._permit = permit
        self._first = first
        self._pace = pace
        self._sending_since: float | None = None

    async def run(self, put: Put, gone: Coroutine[Any, Any, Ending]) -> Ending:
        """Send everything with `put`; `gone` ends when the client does something.

        Close the flow after it, and after the last word to the client: that need not wait.
        """
        self._permit.begin(self._source.nudge)
        leaving = asyncio.create_task(gone)
        sending = asyncio.create_task(self._send_all(put))
        both = {leaving, sending}
        look_s = self._pace.send_timeout_s / 4
        try:
            done: set[asyncio.Task[Ending]] = set()
            while not done and not self._stuck():
                done, _ = await asyncio.wait(
                    both, timeout=look_s, return_when=asyncio.FIRST_COMPLETED
                )
            ending = (sending if sending in done else leaving).result() if done else Ending.SLOW
        except OSError:
            ending = Ending.HUNG_UP
        finally:
            self._permit.end()
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        if ending is Ending.SLOW:
            telemetry.FOLLOWERS_DROPPED.inc()
            log.info("slow reader dropped")
        return ending

    async def close(self) -> None:
        """Also for one that was never run."""
        await asyncio.shield(self._source.close())

    def _stuck(self) -> bool:
        """Whether the reader has taken nothing for too long; cheaper than a time-out a send."""
        return self._sending_since is not None and (
            time.monotonic() - self._sending_since > self._pace.send_timeout_s
        )

    async def _send_all(self, put: Put) -> Ending:
        source, pace = self._source, self._pace
        await self._send(put, COMMENT + self._first)
        spoken = time.monotonic()
        while not (source.finished or source.overrun or source.closing):
            silent_s = time.monotonic() - spoken
            chunk = await source.next(max(pace.heartbeat_s - silent_s, 0))
            if self._permit.revoked:
                await self._send(put, source.revoked())
                return Ending.REVOKED
            if chunk or time.monotonic() - spoken >= pace.heartbeat_s:
                await self._send(put, chunk or COMMENT)
                spoken = time.monotonic()
        if source.overrun:
            return Ending.SLOW
        return Ending.OVER if source.finished else Ending.DRAINING

    async def _send(self, put: Put, chunk: bytes) -> None:
        self._sending_since = time.monotonic()
        await put(chunk, not self._source.finished)
        self._sending_since = None
