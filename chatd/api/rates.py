"""How often something may be asked for: counted in Redis for the whole fleet, else here."""

import asyncio
import time
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from chatd.core.errors import TooMany

PREFIX = "chatd:rates:"
TIMEOUT_S = 0.5
MAX_KEPT = 10_000


class Rates:
    """Windows of a minute, by what is asked for and who asks."""

    def __init__(self, redis: Redis, *, window_s: int = 60) -> None:
        self._redis = redis
        self._window_s = window_s
        self._here: dict[str, int] = {}

    async def take(self, what: str, who: object, *, limit: int) -> None:
        """Raises `TooMany`. While Redis is away every process counts for itself."""
        now = int(time.time())
        left = self._window_s - now % self._window_s
        key = f"{PREFIX}{what}:{who}:{now // self._window_s}"
        if await self._count(key) > limit:
            raise TooMany(
                "Too many requests; try again shortly.", headers={"Retry-After": str(left)}
            )

    async def _count(self, key: str) -> int:
        try:
            async with asyncio.timeout(TIMEOUT_S), self._redis.pipeline(transaction=False) as pipe:
                pipe.incr(key)
                pipe.expire(key, self._window_s + 5)
                counted, _ = await cast(Any, pipe).execute()
        except (RedisError, OSError, TimeoutError):
            if len(self._here) >= MAX_KEPT:
                self._here.clear()
            counted = self._here[key] = self._here.get(key, 0) + 1
        return counted
