"""How long a server may still take; the time in which a person is asked does not count."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Clock:
    """The time of one exchange. `read_s` bounds the silence on its connection; None: not at all.

    Not tied to an event loop before it is used.
    """

    def __init__(self, read_s: float | None) -> None:
        self.questions: set[asyncio.Task[object]] = set()
        """What people are being asked."""
        self._read_s = read_s
        self._reading: asyncio.Timeout | None = None
        self._started = 0.0
        self._heard_at = 0.0
        self._asked_at = 0.0
        self._asking_s = 0.0

    @property
    def elapsed_s(self) -> float:
        return asyncio.get_running_loop().time() - self._started

    def start(self) -> None:
        self._started = self._heard_at = asyncio.get_running_loop().time()
        self._asking_s = 0.0

    def hear(self) -> None:
        """The server showed that it is still at it."""
        self._heard_at = asyncio.get_running_loop().time()

    def left(self, idle_s: float, absolute_s: float) -> float | None:
        """None: no limit, while somebody is being asked."""
        if self.questions:
            return None
        until = min(self._heard_at + idle_s, self._started + self._asking_s + absolute_s)
        return until - asyncio.get_running_loop().time()

    def stop_for(self, question: asyncio.Task[object]) -> None:
        """Stands still until the task is done."""
        if not self.questions:
            self._asked_at = asyncio.get_running_loop().time()
            self._allow(None)
        self.questions.add(question)
        question.add_done_callback(self._answered)

    def close(self) -> None:
        """Nobody waits for answers any more."""
        for question in tuple(self.questions):
            question.cancel()

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[None]:
        """Around a wait for the server's next bytes. Raises TimeoutError if it is too long."""
        async with asyncio.timeout(None if self.questions else self._read_s) as limit:
            self._reading = limit
            try:
                yield
            finally:
                self._reading = None

    def _answered(self, question: asyncio.Task[object]) -> None:
        self.questions.discard(question)
        if self.questions:
            return
        now = self._heard_at = asyncio.get_running_loop().time()
        self._asking_s += now - self._asked_at
        self._allow(self._read_s)

    def _allow(self, read_s: float | None) -> None:
        if self._reading is not None and not self._reading.expired():
            now = asyncio.get_running_loop().time()
            self._reading.reschedule(None if read_s is None else now + read_s)
