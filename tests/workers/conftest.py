"""Runners over the scripted model and the demo MCP server."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from functools import partial

import pytest
from redis.asyncio import Redis

from chatd.dev.served import Served
from chatd.store.db import Database
from tests.seed import make_seed, make_server
from tests.turn.bench import Bench
from tests.turning import turn_deps
from workers.runner import RENEW_S, Runner

MakeRunner = Callable[..., Runner]


@pytest.fixture
async def bench(
    db: Database, redis: Redis, scripted_model: Served, demo_server: Served
) -> AsyncGenerator[Bench]:
    seed = await make_seed(db, scripted_model.url)
    server_id = await make_server(
        db, url=demo_server.url, availability="default_on", trust_annotations=True
    )
    async with turn_deps(db, redis) as deps:
        yield Bench(seed, deps, redis, server_id)


@pytest.fixture
async def make_runner(bench: Bench, database_url: str) -> AsyncGenerator[MakeRunner]:
    async with AsyncExitStack() as stack:

        def make(capacity: int = 10, renew_s: float = RENEW_S, per_owner: int = 0) -> Runner:
            renewals = Database(database_url, pool_size=1)
            runner = Runner(
                bench.deps,
                renewals,
                worker_id="test-worker",
                capacity=capacity,
                per_owner=per_owner,
                renew_s=renew_s,
            )
            stack.push_async_callback(renewals.close)
            stack.push_async_callback(runner.close)
            stack.push_async_callback(partial(runner.drain, 0))
            runner.start()
            return runner

        yield make
