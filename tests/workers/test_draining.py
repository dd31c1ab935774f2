"""Draining: nothing that was claimed is left behind."""

import asyncio

from redis.asyncio import Redis

from chatd.store.db import Database
from tests.seed import make_seed
from tests.turning import turn_deps
from workers.runner import Runner


async def test_a_claim_under_way_when_draining_begins_is_handed_back(
    db: Database, database_url: str, redis: Redis
) -> None:
    seed = await make_seed(db)
    await seed.chat()
    renewals = Database(database_url, pool_size=1)
    async with turn_deps(db, redis) as deps:
        runner = Runner(deps, renewals, worker_id="w", capacity=2)
        runner.start()
        runner.wake()
        for _ in range(5):
            await asyncio.sleep(0)  # until the claim is on its way to PostgreSQL
        assert runner.busy == 0
        await runner.drain(0)
        assert runner.busy == 0
        await runner.close()
    await renewals.close()
    (turn,) = await db.fetch("SELECT status, attempt, lost, lease_id FROM turns")
    assert (turn["status"], turn["attempt"]) == ("pending", 1)
    assert (turn["lost"], turn["lease_id"]) == (0, None)
