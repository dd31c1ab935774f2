"""A worker process, whole: hints, arq's poll, an outage of Redis, SIGTERM."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator
from typing import Any, cast
from uuid import uuid4

import pytest
from arq.constants import job_key_prefix
from arq.jobs import serialize_job
from redis.asyncio import Redis

from chatd.dev.valkey import Valkey
from chatd.queue import QUEUE, WAKE_JOB, WAKE_LIST, to_bytes
from chatd.settings import Settings
from chatd.store.chats import list_chats
from chatd.store.db import Database
from tests.turn.bench import Bench
from tests.waiting import until
from workers.main import serve


@pytest.fixture
async def worker(
    bench: Bench, database_url: str, valkey: Valkey
) -> AsyncGenerator["asyncio.Task[None]"]:
    """Serving in this process; SIGTERM ends it."""
    settings = Settings.model_validate(
        {
            "database_url": database_url,
            "redis_url": valkey.url,
            "encryption_keys": "test:" + "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "model_allowed_cidrs": "127.0.0.0/8",
            "mcp_allowed_cidrs": "127.0.0.0/8",
            "drain_grace_seconds": 0,
        }
    )
    task = asyncio.create_task(serve(settings))
    await until(lambda: listening(bench.redis))
    yield task
    if not task.done():
        os.kill(os.getpid(), signal.SIGTERM)
    await task
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(name)


async def listening(redis: Redis) -> bool:
    """Whether a worker blocks on the wake list."""
    found = await cast(Any, redis).execute_command("CLIENT", "LIST")
    return "cmd=blpop" in str(found)


async def ended(bench: Bench) -> bool:
    """Whether every turn is over."""
    rows = await bench.seed.db.fetch("SELECT DISTINCT status FROM turns")
    return [row["status"] for row in rows] == ["completed"]


async def unseen(bench: Bench) -> None:
    """Makes the pending turns too young for any sweeper."""
    await bench.seed.db.fetch("UPDATE turns SET pending_at = pending_at + interval '1 hour'")


async def test_a_hint_starts_a_turn(bench: Bench, worker: Any) -> None:
    await bench.seed.chat("/say hello")
    await unseen(bench)
    await cast(Any, bench.redis).rpush(WAKE_LIST, "any")
    await until(lambda: ended(bench))


async def test_a_job_whose_hint_was_lost_starts_a_turn(bench: Bench, worker: Any) -> None:
    await bench.seed.chat("/say hello")
    await unseen(bench)
    redis, job_id, now = cast(Any, bench.redis), uuid4().hex, int(time.time() * 1000)
    job = serialize_job(WAKE_JOB, (), {}, None, now, serializer=to_bytes)
    await redis.psetex(job_key_prefix + job_id, 60_000, job)
    await redis.zadd(QUEUE, {job_id: now})
    await until(lambda: ended(bench))

    async def settled() -> bool:
        left = await redis.keys(f"{job_key_prefix.replace('job', '*')}*")
        return await redis.zcard(QUEUE) == 0 and left == []

    await until(settled)  # the job leaves nothing behind


async def test_a_turn_nobody_woke_anybody_for_is_found(bench: Bench, worker: Any) -> None:
    await bench.seed.chat("/say hello")
    await bench.seed.db.fetch("UPDATE turns SET pending_at = pending_at - interval '2 seconds'")
    await until(lambda: ended(bench))


async def test_without_redis_turns_run_and_with_it_again_they_are_heard_of(
    bench: Bench, worker: "asyncio.Task[None]", valkey: Valkey
) -> None:
    valkey.kill()
    try:
        await bench.seed.chat("/say hello")
        await unseen(bench)
        await until(lambda: ended(bench))
    finally:
        await valkey.restart()
    await until(lambda: listening(bench.redis))
    assert not worker.done()
    await bench.seed.chat("/say again")
    await unseen(bench)
    await cast(Any, bench.redis).rpush(WAKE_LIST, "any")
    await until(lambda: ended(bench))


async def test_sigterm_hands_back_what_runs(
    bench: Bench, worker: "asyncio.Task[None]", database_url: str
) -> None:
    await bench.seed.chat("/long 100000 20")
    await cast(Any, bench.redis).rpush(WAKE_LIST, "any")

    async def running() -> bool:
        chats = await list_chats(bench.seed.db, bench.seed.actor.user_id, limit=9)
        return [chat["status"] for chat in chats] == ["running"]

    await until(running)
    os.kill(os.getpid(), signal.SIGTERM)
    await worker
    db = Database(database_url, pool_size=1)
    (turn,) = await db.fetch("SELECT status, lost, lease_id FROM turns")
    assert tuple(turn) == ("pending", 0, None)
    await db.close()
