"""The listener for stops: what the front door pushes reaches the turns in hand at once."""

from collections.abc import Awaitable, Callable, Set
from uuid import UUID

from redis.asyncio import Redis

from chatd.queue import STOPS, Listener, stopped_turns

Look = Callable[[Set[UUID] | None], Awaitable[None]]


class StopListener:
    """Calls `look` with the turns that changed, and with None whenever it may have missed some.

    Without Redis it does nothing: the renewal of leases finds the same, three seconds later.
    """

    def __init__(self, redis: Redis, look: Look) -> None:
        self._look = look
        self._listener = Listener(redis, STOPS, self._take)

    async def run(self) -> None:
        await self._listener.run()

    async def _take(self, payload: bytes | None) -> None:
        if payload is None:
            await self._look(None)
            return
        try:
            turns = stopped_turns(payload)
        except (ValueError, TypeError, AttributeError):
            return  # of a release that says it otherwise
        await self._look(turns)
