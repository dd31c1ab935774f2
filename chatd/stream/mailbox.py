"""What one reader has not taken yet; a reader who is too slow is dropped, never waited for."""

import asyncio
from collections import deque
from typing import Generic, TypeVar

MAX_WAITING = 2_000
"""Letters a reader may be behind."""

MAX_WAITING_BYTES = 16 * 2**20

Letter = TypeVar("Letter")


class Mailbox(Generic[Letter]):
    def __init__(self) -> None:
        self._waiting: deque[Letter] = deque()
        self._some = asyncio.Event()
        self.size = 0
        self.overrun = False
        """The reader was too slow: letters are missing, close it."""
        self.closing = False
        """The process is going away."""

    def put(self, letter: Letter, size: int) -> None:
        self.size += size
        if len(self._waiting) >= MAX_WAITING or self.size > MAX_WAITING_BYTES:
            self.overrun = True
        else:
            self._waiting.append(letter)
        self._some.set()

    def close(self) -> None:
        self.closing = True
        self._some.set()

    def nudge(self) -> None:
        """Let the reader look up although nothing came."""
        self._some.set()

    async def wait(self, timeout_s: float) -> list[Letter]:
        """What came since; empty after `timeout_s` or on a nudge."""
        if not self._some.is_set():
            # A timer that only sets the event: asyncio.timeout costs more than what it waits for.
            timer = asyncio.get_running_loop().call_later(timeout_s, self._some.set)
            try:
                await self._some.wait()
            finally:
                timer.cancel()
        self._some.clear()
        letters = list(self._waiting)
        self._waiting.clear()
        self.size = 0
        return letters
