"""How often something may be asked for, with Redis and without."""

import pytest
from redis.asyncio import Redis

from chatd.api.rates import Rates
from chatd.core.errors import TooMany


async def refused(rates: Rates, who: str, *, times: int) -> int:
    count = 0
    for _ in range(times):
        try:
            await rates.take("x", who, limit=2)
        except TooMany:
            count += 1
    return count


async def test_processes_count_together_and_users_apart(redis: Redis) -> None:
    one, other = Rates(redis, window_s=3600), Rates(redis, window_s=3600)
    assert await refused(one, "ada", times=2) == 0
    assert await refused(other, "ada", times=1) == 1
    assert await refused(other, "max", times=1) == 0
    for key in await redis.keys("chatd:rates:*"):
        assert await redis.ttl(key) > 0


async def test_without_redis_each_process_counts_for_itself() -> None:
    nowhere = Redis.from_url("redis://127.0.0.1:9")
    rates = Rates(nowhere, window_s=3600)
    assert await refused(rates, "ada", times=3) == 1
    with pytest.raises(TooMany) as refusal:
        await rates.take("x", "ada", limit=2)
    assert 1 <= int(refusal.value.headers["Retry-After"]) <= 3600
    await nowhere.aclose()
