"""How many turns a model provider may have at once, and claims that are paused."""

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest

from chatd.core.errors import Unavailable
from chatd.core.work import Claim
from chatd.store import hot, work
from chatd.store.db import Database
from chatd.store.policy_state import pause_claims, read_state
from chatd.store.sweeping import count_unclaimed
from tests.seed import Seed, make_model, make_user
from tests.store.working import finish, park
from tests.waiting import locked, one, transaction


async def limit(db: Database, model_id: UUID, turns: int | None) -> None:
    await db.fetch(
        """UPDATE model_providers SET max_concurrent_turns = $2
        WHERE id = (SELECT provider_id FROM model_configs WHERE id = $1)""",
        model_id,
        turns,
    )


async def crowd(seed: Seed, turns: int) -> None:
    """So many chats of this user for this model, each with a pending turn."""
    for _ in range(turns):
        await seed.chat(model_config_id=seed.model_id)


async def claim(seed: Seed, turns: int = 100, per_owner: int = 0) -> list[Claim]:
    """As a worker that knows of limits."""
    return await work.claim_turns(seed.db, "w", turns, per_owner=per_owner, limited=True)


async def running(db: Database, model_id: UUID) -> int:
    sql = "SELECT count(*) AS n FROM turns WHERE status = 'running' AND model_config_id = $1"
    return (await one(db, sql, model_id))["n"]


@pytest.fixture
async def free(seed: Seed) -> Seed:
    """The same user with a model whose provider has no limit."""
    return replace(seed, model_id=await make_model(seed.db))


@pytest.fixture
async def eve(seed: Seed) -> Seed:
    """Another user of the first model."""
    return replace(seed, actor=await make_user(seed.db, "eve"))


async def test_a_worker_that_has_not_heard_of_a_limit_claims_nothing(seed: Seed) -> None:
    await crowd(seed, 1)
    await limit(seed.db, seed.model_id, 1)
    assert await work.claim_turns(seed.db, "w", 4) == []
    assert (await read_state(seed.db)).limited
    assert len(await claim(seed)) == 1


async def test_a_limit_of_a_deleted_provider_is_none(seed: Seed) -> None:
    await crowd(seed, 2)
    await limit(seed.db, seed.model_id, 1)
    await seed.db.fetch("UPDATE model_providers SET deleted_at = clock_timestamp()")
    assert not (await read_state(seed.db)).limited
    assert len(await work.claim_turns(seed.db, "w", 4)) == 2


async def test_workers_that_claim_together_never_pass_a_limit(seed: Seed) -> None:
    await crowd(seed, 12)
    await limit(seed.db, seed.model_id, 3)
    found = await asyncio.gather(
        *(work.claim_turns(seed.db, f"w{number}", 4, limited=True) for number in range(6))
    )
    assert sum(map(len, found)) == 3
    assert await running(seed.db, seed.model_id) == 3


async def test_a_claim_counts_what_the_one_before_it_took(
    seed: Seed, eve: Seed, database_url: str
) -> None:
    """Each would take another owner's turn, so nothing else would keep them apart."""
    await crowd(seed, 1)
    await crowd(eve, 1)
    await limit(seed.db, seed.model_id, 1)
    async with transaction(database_url) as first:
        await first.execute(hot.LOCK_CLAIMS)
        await first.execute(hot.CLAIM_LIMITED, 1, "w1", [eve.actor.user_id], 0)
        served = [seed.actor.user_id]
        second = asyncio.create_task(
            work.claim_turns(seed.db, "w2", 1, served=served, limited=True)
        )
        await first.waiting(1)
    assert await second == []
    assert await running(seed.db, seed.model_id) == 1


async def test_what_waits_for_a_provider_holds_up_nobody(seed: Seed, free: Seed) -> None:
    await crowd(seed, 300)
    await limit(seed.db, seed.model_id, 1)
    await crowd(free, 2)
    assert len(await claim(seed)) == 3
    assert await running(seed.db, free.model_id) == 2
    await crowd(free, 1)
    assert len(await claim(seed)) == 1


async def test_a_turn_that_ends_makes_room_for_one(seed: Seed) -> None:
    await crowd(seed, 3)
    await limit(seed.db, seed.model_id, 1)
    (first,) = await claim(seed)
    assert await claim(seed) == []
    await finish(seed, first)
    assert len(await claim(seed)) == 1


async def test_a_parked_turn_leaves_its_place(seed: Seed) -> None:
    await crowd(seed, 2)
    await limit(seed.db, seed.model_id, 1)
    (first,) = await claim(seed)
    await park(seed, first)
    assert len(await claim(seed)) == 1


async def test_a_lower_limit_stops_nothing_and_lets_nothing_in(seed: Seed) -> None:
    await crowd(seed, 5)
    await limit(seed.db, seed.model_id, 3)
    claims = await claim(seed)
    await limit(seed.db, seed.model_id, 2)
    await finish(seed, claims[0])
    assert await claim(seed) == []
    await finish(seed, claims[1])
    assert len(await claim(seed)) == 1


async def test_owners_share_a_limited_provider(seed: Seed, eve: Seed) -> None:
    await crowd(seed, 6)
    await crowd(eve, 2)
    await limit(seed.db, seed.model_id, 4)
    owners = [found.owner_id for found in await claim(seed)]
    assert sorted(map(owners.count, (seed.actor.user_id, eve.actor.user_id))) == [2, 2]


async def test_who_is_at_their_own_limit_keeps_no_seat_from_others(seed: Seed, eve: Seed) -> None:
    await crowd(seed, 6)
    await crowd(eve, 1)
    await limit(seed.db, seed.model_id, 4)
    assert len(await claim(seed, per_owner=2)) == 3


async def test_archived_chats_keep_no_seat(seed: Seed) -> None:
    await crowd(seed, 1)
    await seed.db.fetch("UPDATE chats SET archived = true")
    await crowd(seed, 1)
    await limit(seed.db, seed.model_id, 1)
    assert len(await claim(seed)) == 1


async def test_what_has_no_seat_does_not_count_for_its_owner(seed: Seed, free: Seed) -> None:
    await crowd(seed, 5)
    await crowd(free, 1)
    await limit(seed.db, seed.model_id, 1)
    assert len(await claim(seed, per_owner=2)) == 2
    assert await running(seed.db, free.model_id) == 1


async def test_a_claim_that_is_frozen_holds_up_the_others_for_a_moment(
    seed: Seed, database_url: str
) -> None:
    await crowd(seed, 1)
    await limit(seed.db, seed.model_id, 1)
    async with transaction(database_url) as frozen:
        await frozen.execute(hot.LOCK_CLAIMS)
        with pytest.raises(Unavailable):
            await claim(seed)
    assert len(await claim(seed)) == 1


async def unclaimed(seed: Seed) -> int:
    """Of all that are pending, as if they had been for a while."""
    await seed.db.fetch("UPDATE turns SET pending_at = pending_at - interval '2 seconds'")
    return await count_unclaimed(seed.db)


async def test_nobody_is_woken_for_turns_that_wait_for_their_provider(
    seed: Seed, free: Seed
) -> None:
    await crowd(seed, 3)
    await limit(seed.db, seed.model_id, 1)
    await claim(seed)
    assert await unclaimed(seed) == 0
    await crowd(free, 2)
    assert await unclaimed(seed) == 2


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE policy_state SET claims_paused = true",
        "UPDATE users SET suspended = true",
        "UPDATE chats SET archived = true",
    ],
)
async def test_nobody_is_woken_for_what_nobody_may_claim(seed: Seed, sql: str) -> None:
    await crowd(seed, 1)
    assert await unclaimed(seed) == 1
    await seed.db.fetch(sql)
    assert await unclaimed(seed) == 0


async def test_a_locked_chat_is_skipped_with_limits_as_well(seed: Seed, database_url: str) -> None:
    held = await seed.chat_id()
    await limit(seed.db, seed.model_id, 1)
    async with locked(database_url, held):
        assert await claim(seed) == []
    assert len(await claim(seed)) == 1


@pytest.mark.parametrize("limited", [False, True])
async def test_nobody_claims_while_claims_are_paused(seed: Seed, *, limited: bool) -> None:
    await crowd(seed, 1)
    async with seed.db.transaction() as session:
        assert await pause_claims(session, True) is False
    await crowd(seed, 1)
    assert await work.claim_turns(seed.db, "w", 4, limited=limited) == []
    async with seed.db.transaction() as session:
        assert await pause_claims(session, False) is True
    assert len(await work.claim_turns(seed.db, "w", 4, limited=limited)) == 2
