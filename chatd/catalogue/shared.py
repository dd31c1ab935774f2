"""The fleet's copy in Redis: lists, who is fetching one, which servers are down.

Redis may be slow, wrong or away: the answer is then as if it held nothing.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

from chatd.catalogue.entries import MAX_AGE_S, Entry, Key, packed, unpacked

OPERATION_S = 0.25
AWAY_S = 2.0
"""After a failure Redis is left alone for as long, so that a dead one is waited for only once."""
LOCK_S = 15.0
"""Longer than any fetch."""
LOG_S = 60.0

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """What Redis knows of a list."""

    entry: Entry | None = None
    down: bool = False
    """The server was found unreachable a moment ago."""
    locked: bool = False
    """Somebody is fetching it."""


class Shared:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._away_until = 0.0
        self._log_at = 0.0

    async def read(self, key: Key) -> Known:
        names = [_list(key), _down(key), _lock(key)]
        nothing: list[bytes | None] = [None, None, None]
        data, down, lock = await self._ask(lambda: self._redis.mget(names), nothing)
        entry = None if data is None else unpacked(key.server_id, data)
        return Known(entry, down is not None, lock is not None)

    async def lock(self, key: Key) -> bool:
        """False when somebody else has it; without Redis everybody may fetch."""
        lifetime = int(LOCK_S * 1000)
        taken = await self._ask(
            lambda: self._redis.set(_lock(key), b"1", px=lifetime, nx=True), True
        )
        return bool(taken)

    async def write(self, key: Key, entry: Entry) -> None:
        """The list, fetched under our lock, which ends with it; the server is not down."""

        async def operation() -> None:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.set(_list(key), packed(entry), ex=int(MAX_AGE_S))
                pipeline.delete(_lock(key), _down(key))
                await pipeline.execute()

        await self._ask(operation, None)

    async def fail(self, key: Key, *, down_s: float = 0.0, drop: bool = False) -> None:
        """Ends our lock; the server is down for `down_s` seconds, or its list holds no longer."""

        async def operation() -> None:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.delete(_lock(key), *([_list(key)] if drop else []))
                if down_s:
                    pipeline.set(_down(key), b"1", px=int(down_s * 1000))
                await pipeline.execute()

        await self._ask(operation, None)

    async def down(self, configs: Sequence[tuple[UUID, int]]) -> frozenset[UUID]:
        """Those servers of these (id, version) that were found unreachable a moment ago."""
        if not configs:
            return frozenset()
        names = [_down_of(*config) for config in configs]
        found = await self._ask(lambda: self._redis.mget(names), [None] * len(names))
        return frozenset(
            server_id
            for (server_id, _), down in zip(configs, found, strict=True)
            if down is not None
        )

    async def _ask(self, operation: Callable[[], Awaitable[T]], otherwise: T) -> T:
        now = time.monotonic()
        if now < self._away_until:
            return otherwise
        try:
            async with asyncio.timeout(OPERATION_S):
                return await operation()
        except (RedisError, OSError, TimeoutError) as error:
            self._away_until = time.monotonic() + AWAY_S
            if now >= self._log_at:
                self._log_at = now + LOG_S
                log.warning("tool lists are not shared, Redis is away: %s", type(error).__name__)
            return otherwise


def _list(key: Key) -> str:
    return f"chatd:mcp:list:{key.server_id}:{key.version}:{key.principal}"


def _lock(key: Key) -> str:
    return f"chatd:mcp:lock:{key.server_id}:{key.version}:{key.principal}"


def _down(key: Key) -> str:
    return _down_of(key.server_id, key.version)


def _down_of(server_id: UUID, version: int) -> str:
    return f"chatd:mcp:down:{server_id}:{version}"
