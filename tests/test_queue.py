"""Wakes: an arq job and a hint each, and never an error."""

from collections.abc import AsyncGenerator
from typing import Any, cast
from uuid import uuid4

import pytest
from arq.constants import job_key_prefix
from arq.jobs import deserialize_job_raw
from redis.asyncio import Redis

from chatd.dev.valkey import Valkey
from chatd.queue import (
    MAX_HINTS,
    MAX_WAKES,
    QUEUE,
    STOPS,
    WAKE_JOB,
    WAKE_LIST,
    Hints,
    Stops,
    Wakes,
    from_bytes,
    stopped_turns,
)
from tests.waiting import soon, until


@pytest.fixture
async def wakes(redis: Redis) -> AsyncGenerator[Wakes]:
    made = Wakes(redis)
    made.start()
    yield made
    await made.close()


async def queued(redis: Redis) -> tuple[int, int, int]:
    """Jobs in arq's queue, their bodies, and hints."""
    client = cast(Any, redis)
    bodies = await client.keys(f"{job_key_prefix}*")
    return await client.zcard(QUEUE), len(bodies), await client.llen(WAKE_LIST)


async def test_a_wake_is_a_job_and_its_hint(redis: Redis, wakes: Wakes) -> None:
    wakes.wake()

    async def arrived() -> bool:
        return await queued(redis) == (1, 1, 1)

    await until(arrived)
    client = cast(Any, redis)
    (job_id,) = await client.zrange(QUEUE, 0, -1)
    assert await client.lrange(WAKE_LIST, 0, -1) == [job_id]
    body = await client.get(job_key_prefix + job_id.decode())
    assert deserialize_job_raw(body, deserializer=from_bytes)[:3] == (WAKE_JOB, [], {})
    assert await client.ttl(job_key_prefix + job_id.decode()) > 0


async def test_a_burst_is_sent_together_and_capped(redis: Redis, wakes: Wakes) -> None:
    for _ in range(3 * MAX_WAKES):
        wakes.wake()
    await wakes.close()
    assert await queued(redis) == (MAX_WAKES, MAX_WAKES, MAX_WAKES)


async def test_hints_nobody_takes_do_not_pile_up(redis: Redis) -> None:
    await cast(Any, redis).rpush(WAKE_LIST, *range(MAX_HINTS - 5))
    wakes = Wakes(redis)
    wakes.start()
    wakes.wake(10)
    await wakes.close()
    assert await cast(Any, redis).llen(WAKE_LIST) == MAX_HINTS
    newest = await cast(Any, redis).lrange(WAKE_LIST, -10, -1)
    assert set(newest) == set(await cast(Any, redis).zrange(QUEUE, 0, -1))


async def test_closing_sends_what_is_wanted(redis: Redis) -> None:
    wakes = Wakes(redis)
    wakes.start()
    wakes.wake(3)
    await wakes.close()
    assert await queued(redis) == (3, 3, 3)


async def test_a_hint_is_taken_with_its_job(redis: Redis, wakes: Wakes) -> None:
    hints = Hints(redis)
    wakes.wake(2)
    assert await hints.take(10)
    assert await hints.take(10)
    assert not await hints.take(0.01)
    assert await cast(Any, redis).zcard(QUEUE) == 0


async def test_the_data_of_a_taken_job_stays_for_a_poll_that_is_about_to_read_it(
    redis: Redis, wakes: Wakes
) -> None:
    hints = Hints(redis)
    wakes.wake()
    assert await hints.take(10)
    assert not await hints.take(0.01)
    (job,) = [key async for key in cast(Any, redis).scan_iter(match=job_key_prefix + "*")]
    assert await cast(Any, redis).pttl(job) > 0


async def test_the_queue_keeps_no_more_jobs_than_say_something_new(redis: Redis) -> None:
    for _ in range(12):
        wakes = Wakes(redis)
        wakes.start()
        wakes.wake(MAX_WAKES)
        await wakes.close()
    assert await cast(Any, redis).zcard(QUEUE) == MAX_HINTS


async def test_without_a_wake_there_is_no_hint(redis: Redis) -> None:
    assert not await Hints(redis).take(0.01)


async def test_redis_being_away_costs_the_wake_and_nothing_else(
    valkey: Valkey, redis: Redis, wakes: Wakes
) -> None:
    valkey.kill()
    try:
        wakes.wake()
        await soon(lambda: wakes.failures)
    finally:
        await valkey.restart()
    wakes.wake()

    async def arrived() -> bool:
        return await queued(redis) == (1, 1, 1)

    await until(arrived)


async def test_stops_of_a_burst_are_one_message(redis: Redis) -> None:
    pubsub = cast(Any, redis.pubsub())
    await pubsub.subscribe(STOPS)
    assert (await pubsub.get_message(timeout=10))["type"] == "subscribe"
    stops = Stops(redis)
    stops.start()
    turns = [uuid4() for _ in range(5)]
    stops.push([])
    stops.push(turns[:2])
    stops.push(turns[2:])
    await stops.close()
    assert stopped_turns((await pubsub.get_message(timeout=10))["data"]) == set(turns)
    assert await pubsub.get_message(timeout=0.01) is None
    await pubsub.aclose()


async def test_a_stop_that_cannot_be_sent_is_no_error(valkey: Valkey, redis: Redis) -> None:
    stops = Stops(redis)
    stops.start()
    valkey.kill()
    try:
        stops.push([uuid4()])
        await soon(lambda: stops.failures)
    finally:
        await valkey.restart()
    await stops.close()
