"""The listener for stops: what the front door pushes reaches the turns in hand at once."""

import asyncio
from collections.abc import Awaitable, Callable, Set
from typing import Any
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

from chatd import logs
from chatd.queue import STOPS, stopped_turns

RECONNECT_S = 0.5
CONNECT_TIMEOUT_S = 5.0

AWAY = (RedisError, OSError, TimeoutError)

Look = Callable[[Set[UUID] | None], Awaitable[None]]

log = logs.get("stops")


class StopListener:
    """Calls `look` with the turns that changed, and with None whenever it may have missed some.

    Without Redis it does nothing: the renewal of leases finds the same, three seconds later.
    """

    def __init__(self, redis: Redis, look: Look) -> None:
        self._redis = redis
        self._look = look

    async def run(self) -> None:
        while True:
            try:
                await self._listen()
            except AWAY:
                pass
            except Exception as error:
                log.exception("listening failed", error=type(error).__name__)
            await asyncio.sleep(RECONNECT_S)

    async def _listen(self) -> None:
        pubsub: Any = self._redis.pubsub()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await pubsub.subscribe(STOPS)
            while True:
                await self._take(await pubsub.get_message(timeout=None))
        finally:
            await pubsub.aclose()

    async def _take(self, message: dict[str, Any] | None) -> None:
        if message is None:
            return
        if message["type"] == "subscribe":
            await self._look(None)
        elif message["type"] == "message":
            try:
                turns = stopped_turns(message["data"])
            except (ValueError, TypeError, AttributeError):
                return  # of a release that says it otherwise
            await self._look(turns)
