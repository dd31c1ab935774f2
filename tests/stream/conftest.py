"""A publisher that sends nothing by the clock."""

from collections.abc import AsyncGenerator

import pytest
from redis.asyncio import Redis

from chatd.stream.publisher import Publisher


@pytest.fixture
async def publisher(redis: Redis) -> AsyncGenerator[Publisher]:
    """Its window never closes by itself: what is sent is sent for a reason."""
    made = Publisher(redis, window_s=3600)
    made.start()
    yield made
    await made.close()


@pytest.fixture
async def prompt(redis: Redis) -> AsyncGenerator[Publisher]:
    """Its window is over at once."""
    made = Publisher(redis, window_s=0)
    made.start()
    yield made
    await made.close()
