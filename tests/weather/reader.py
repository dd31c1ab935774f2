"""An open tab in bad weather: it comes back, to whichever front door is there, with its cursor."""

import asyncio
from collections.abc import Callable

import httpx2

from tests.e2e.client import Client, events
from tests.e2e.view import View
from tests.waiting import until

PAUSE_S = 0.2


class Reader:
    """Follows a chat until `close`. Whatever breaks what the stream promises fails `until`."""

    def __init__(self, door: Callable[[], Client], chat_id: str) -> None:
        self.view = View()
        self.visits = 0
        self._door = door
        self._path = f"/chats/{chat_id}/stream"
        self._failure: BaseException | None = None
        self._may_come = asyncio.Event()
        self._may_come.set()
        self._visit: asyncio.Task[None] | None = None
        self._task = asyncio.create_task(self._run())

    def hang_up(self) -> None:
        """Stays away until `come_back`."""
        self._may_come.clear()
        if self._visit is not None:
            self._visit.cancel()

    def come_back(self) -> None:
        self._may_come.set()

    async def until(self, check: Callable[[View], object], within_s: float) -> None:
        async def found() -> object:
            if self._failure is not None:
                raise self._failure
            return check(self.view)

        try:
            await until(found, within_s)
        except TimeoutError:
            raise AssertionError(f"not seen in {within_s} s: {self.view}") from None

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while True:
                await self._may_come.wait()
                self._visit = asyncio.create_task(self._stay())
                try:
                    await asyncio.wait({self._visit})
                finally:
                    self._visit.cancel()
                if not self._visit.cancelled():
                    self._visit.result()
                await asyncio.sleep(PAUSE_S)
        except Exception as error:
            self._failure = error

    async def _stay(self) -> None:
        """Until the connection breaks; a door that is closed is tried again."""
        cursor = {"Last-Event-ID": self.view.cursor} if self.view.cursor is not None else {}
        try:
            async with self._door().http.stream(
                "GET", self._path, headers=cursor, timeout=None
            ) as response:
                if response.status_code != 200:
                    return
                self.visits += 1
                async for event in events(response):
                    self.view.take(event)
        except httpx2.HTTPError:
            pass
