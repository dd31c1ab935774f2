"""A sweeper's round: what it mends, and whom it tells."""

from typing import Any, cast

import pytest
from redis.asyncio import Redis

from chatd.core.errors import Unavailable
from chatd.queue import WAKE_LIST, Wakes
from chatd.store.db import Database
from chatd.stream.publisher import Publisher
from tests.relay import relay_to
from tests.seed import Seed
from tests.store.working import park, run_out, statuses
from tests.stream.listening import listening
from workers.sweep import BLIND_S, EVERY_S, JITTER_S, LEASE_S, Sweeper


class Sweep:
    """A sweeper with a clock that the test turns, and what it asked for."""

    def __init__(self, db: Database, redis: Redis, *, free: int = 5) -> None:
        self.now = 1000.0
        self.claims = 0
        self._redis = redis
        self._wakes = Wakes(redis)
        self.publisher = Publisher(redis)
        self.sweeper = Sweeper(
            db,
            self._wakes,
            self.publisher,
            free=lambda: free,
            wake=self._claim,
            clock=lambda: self.now,
        )

    def _claim(self) -> None:
        self.claims += 1

    async def wakes(self) -> int:
        """Sends what was asked for; answers how many."""
        self._wakes.start()
        await self._wakes.close()
        return await cast(Any, self._redis).llen(WAKE_LIST)


async def test_a_round_with_nothing_to_mend_wakes_nobody(seed: Seed, redis: Redis) -> None:
    claim = await seed.claimed()
    await seed.send(claim.chat_id)
    sweep = Sweep(seed.db, redis)
    await sweep.sweeper.sweep()
    assert (await sweep.wakes(), sweep.claims) == (0, 0)


async def test_an_expired_turn_is_released_announced_and_woken_for(
    seed: Seed, redis: Redis
) -> None:
    claim = await seed.claimed()
    await run_out(seed, claim)
    sweep = Sweep(seed.db, redis)
    sweep.publisher.start()
    async with listening(redis, claim.chat_id) as channel:
        await sweep.sweeper.sweep()
        assert (await channel.entry()).version == claim.version + 1
    await sweep.publisher.close()
    assert await statuses(seed, claim.chat_id) == ["pending"]
    assert await sweep.wakes() == 1


async def test_a_stranded_queue_is_promoted_announced_and_woken_for(
    seed: Seed, redis: Redis
) -> None:
    claim = await seed.claimed()
    await seed.send(claim.chat_id)
    await seed.db.fetch(
        "UPDATE turns SET status = 'completed', lease_id = NULL, finished_at = clock_timestamp()"
        " WHERE id = $1",
        claim.turn_id,
    )
    sweep = Sweep(seed.db, redis)
    sweep.publisher.start()
    async with listening(redis, claim.chat_id) as channel:
        await sweep.sweeper.sweep()
        assert (await channel.entry()).events == ()
    await sweep.publisher.close()
    assert await statuses(seed, claim.chat_id) == ["completed", "pending"]
    assert (await sweep.wakes(), sweep.claims) == (1, 1)


@pytest.mark.parametrize(("free", "wakes"), [(5, 3), (2, 2), (0, 1)])
async def test_lost_wakes_are_sent_again_for_as_many_as_there_is_room(
    seed: Seed, redis: Redis, free: int, wakes: int
) -> None:
    for _ in range(3):
        await seed.chat()
    await seed.db.fetch("UPDATE turns SET pending_at = pending_at - interval '2 seconds'")
    sweep = Sweep(seed.db, redis, free=free)
    await sweep.sweeper.sweep()
    assert (await sweep.wakes(), sweep.claims) == (wakes, 1)


async def test_a_sweeper_that_was_blind_lets_others_renew_first(
    seed: Seed, redis: Redis, database_url: str
) -> None:
    claim = await seed.claimed()
    await run_out(seed, claim)
    async with relay_to(database_url) as (relay, url):
        db = Database(url, pool_size=1)
        sweep = Sweep(db, redis)
        relay.refuse()
        with pytest.raises(Unavailable):
            await sweep.sweeper.sweep()
        sweep.now += EVERY_S + JITTER_S + BLIND_S + 0.1
        relay.accept()
        await sweep.sweeper.sweep()
        assert await statuses(seed, claim.chat_id) == ["running"]
        for _ in range(4):
            sweep.now += LEASE_S / 4 - 0.01
            await sweep.sweeper.sweep()
            assert await statuses(seed, claim.chat_id) == ["running"]
        sweep.now += 0.1
        await sweep.sweeper.sweep()
        assert await statuses(seed, claim.chat_id) == ["pending"]
        await db.close()


async def test_a_short_outage_blinds_nobody(seed: Seed, redis: Redis) -> None:
    claim = await seed.claimed()
    sweep = Sweep(seed.db, redis)
    await sweep.sweeper.sweep()
    await run_out(seed, claim)
    sweep.now += EVERY_S + BLIND_S
    await sweep.sweeper.sweep()
    assert await statuses(seed, claim.chat_id) == ["pending"]


async def test_a_turn_that_cannot_be_mended_keeps_no_other_from_it(
    seed: Seed, redis: Redis
) -> None:
    """A sweeper finds the expired first and overdue items and stranded queues after them."""
    bad, good, parked, stranded = [await seed.claimed() for _ in range(4)]
    await park(seed, parked)
    await seed.db.fetch("UPDATE open_items SET deadline = clock_timestamp()")
    await seed.send(stranded.chat_id)
    await seed.db.fetch(
        "UPDATE turns SET status = 'completed', lease_id = NULL, finished_at = clock_timestamp()"
        " WHERE id = $1",
        stranded.turn_id,
    )
    await run_out(seed, bad)
    await run_out(seed, good)
    await seed.db.fetch(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RAISE EXCEPTION ''no''; END'"
    )
    await seed.db.fetch(
        "CREATE TRIGGER refuse BEFORE UPDATE ON turns FOR EACH ROW"
        f" WHEN (NEW.id = '{bad.turn_id}') EXECUTE FUNCTION refuse()"
    )
    await Sweep(seed.db, redis).sweeper.sweep()
    found = [await statuses(seed, claim.chat_id) for claim in (bad, good, parked, stranded)]
    assert found == [["running"], ["pending"], ["pending"], ["completed", "pending"]]
