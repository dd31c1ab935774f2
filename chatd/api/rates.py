"""How often something may be asked for: counted in Redis for the whole fleet, else here."""

import asyncio
import time
from ipaddress import IPv6Address, ip_address
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.requests import HTTPConnection

from chatd.core.errors import TooMany

PREFIX = "chatd:rates:"
TIMEOUT_S = 0.5
MAX_KEPT = 10_000
VISITS_A_MINUTE = 300
"""To each page that nobody needs to be signed in for, of one client: an office behind one address
is one. There is no limit of all together: whoever used that up would lock the others out."""


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

    async def admit(self, what: str, request: HTTPConnection, user: object = None) -> None:
        """A visit: the user's, where one is known, else the client's. Raises `TooMany`."""
        who = user if user is not None else client_of(request)
        await self.take(what, who, limit=VISITS_A_MINUTE)

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


def client_of(request: HTTPConnection) -> str:
    """Where a request comes from: an address, which a listed proxy may tell of its own client. Of
    IPv6 the network: a client has as many addresses of it as it likes."""
    host = request.client.host if request.client is not None else ""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return "unknown"
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64))
