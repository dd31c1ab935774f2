"""Who gets which turn, and that none is lost between finishing and submitting."""

import asyncio
from uuid import UUID

import pytest

from chatd.core.chats import MAX_QUEUED
from chatd.core.errors import (
    TooMany,
)
from chatd.core.work import Claim
from chatd.store import work
from tests.seed import Seed, answer, make_user
from tests.store.working import finish, told, turn_of
from tests.waiting import locked


async def test_a_claim_says_what_the_worker_needs(seed: Seed) -> None:
    accepted = await seed.chat()
    claim = await seed.claim()
    assert str(claim.turn_id) == accepted.turn["id"]
    assert (claim.version, claim.attempt, claim.commits) == (accepted.version + 1, 1, 0)
    assert 0 <= claim.waited_s < 20
    assert (await turn_of(seed, claim))["status"] == "running"


async def crowd(seed: Seed, turns: int) -> None:
    """So many chats of this user, each with a pending turn, all older than any other."""
    await seed.db.fetch(
        """WITH chat AS (
            INSERT INTO chats (id, owner_id, title, system_prompt, client_type, labels, archived,
                pin_order)
            SELECT gen_random_uuid(), $1, 'x', '', 'api', '{}', false, 0
            FROM generate_series(1, $2::int) RETURNING id
        ) INSERT INTO turns (id, chat_id, owner_id, status, content, pending_at)
        SELECT gen_random_uuid(), id, $1, 'pending', '[]', clock_timestamp() - interval '1 minute'
        FROM chat""",
        seed.actor.user_id,
        turns,
    )


async def test_one_owners_thousand_turns_do_not_delay_anothers_one(seed: Seed, other: Seed) -> None:
    await crowd(seed, 1000)
    accepted = await other.chat()
    claims = await work.claim_turns(seed.db, "w", 2)
    assert accepted.turn["id"] in {str(claim.turn_id) for claim in claims}


@pytest.fixture
async def other(seed: Seed) -> Seed:
    return Seed(seed.db, await make_user(seed.db, "eve"), seed.model_id)


async def test_the_owner_with_fewer_running_turns_comes_first(seed: Seed, other: Seed) -> None:
    await crowd(seed, 3)
    assert (await seed.claim()).owner_id == seed.actor.user_id
    await other.chat()
    assert (await seed.claim()).owner_id == other.actor.user_id


async def test_at_capacity_one_another_owner_waits_for_one_claim_only(
    seed: Seed, other: Seed
) -> None:
    await crowd(seed, 1000)
    accepted = await other.chat()
    (first,) = await work.claim_turns(seed.db, "w", 1)
    await finish(seed, first)
    (second,) = await work.claim_turns(seed.db, "w", 1, served=[first.owner_id])
    assert first.owner_id == seed.actor.user_id
    assert str(second.turn_id) == accepted.turn["id"]


async def test_owners_take_turns_whoever_has_waited_longest(seed: Seed, other: Seed) -> None:
    await crowd(seed, 4)
    await crowd(other, 4)
    served: dict[UUID, None] = {}
    order: list[UUID] = []
    for _ in range(8):
        (claim,) = await work.claim_turns(seed.db, "w", 1, served=list(served))
        served.pop(claim.owner_id, None)
        served[claim.owner_id] = None
        order.append(claim.owner_id)
        await finish(seed, claim)
    assert order == [seed.actor.user_id, other.actor.user_id] * 4


async def test_a_batch_leaves_room_for_the_other_owner(seed: Seed, other: Seed) -> None:
    await crowd(seed, 1000)
    assert len(await work.claim_turns(seed.db, "w", 4)) == 4
    accepted = await other.chat()
    claims = await work.claim_turns(seed.db, "w", 4)
    assert accepted.turn["id"] in {str(claim.turn_id) for claim in claims}


async def test_the_first_turn_of_every_owner_is_seen_however_many_are_pending(
    seed: Seed, other: Seed
) -> None:
    await crowd(seed, 5000)
    await seed.db.fetch("ANALYZE turns")
    accepted = await other.chat()
    claims = await work.claim_turns(seed.db, "w", 4)
    assert str(claims[0].turn_id) != accepted.turn["id"]
    assert accepted.turn["id"] in {str(claim.turn_id) for claim in claims}


async def test_an_owner_at_the_limit_waits_and_others_pass(seed: Seed, other: Seed) -> None:
    await crowd(seed, 10)
    mine = await work.claim_turns(seed.db, "w", 8, per_owner=2)
    assert len(mine) == 2
    accepted = await other.chat()
    claims = await work.claim_turns(seed.db, "w", 8, per_owner=2)
    assert [str(claim.turn_id) for claim in claims] == [accepted.turn["id"]]
    await finish(seed, mine[0])
    assert len(await work.claim_turns(seed.db, "w", 8, per_owner=2)) == 1


async def test_workers_that_claim_together_keep_the_limit(seed: Seed) -> None:
    await crowd(seed, 30)
    found = await asyncio.gather(
        *(work.claim_turns(seed.db, f"w{number}", 4, per_owner=3) for number in range(8))
    )
    assert sum(len(claims) for claims in found) <= 3
    await work.claim_turns(seed.db, "w", 4, per_owner=3)
    running = await seed.db.fetch("SELECT 1 FROM turns WHERE status = 'running'")
    assert len(running) == 3


async def test_concurrent_claimers_never_get_the_same_turn(seed: Seed) -> None:
    await crowd(seed, 60)

    async def claim_all(worker: str) -> list[Claim]:
        mine: list[Claim] = []
        while claims := await work.claim_turns(seed.db, worker, 4):
            mine += claims
        return mine

    found = await asyncio.gather(*(claim_all(f"w{number}") for number in range(6)))
    claims = [claim for mine in found for claim in mine]
    left = await work.claim_turns(seed.db, "w", 100)
    assert len({claim.turn_id for claim in claims + left}) == len(claims + left) == 60
    assert len({claim.lease_id for claim in claims + left}) == 60


async def test_a_locked_chat_is_skipped_not_waited_for(seed: Seed, database_url: str) -> None:
    locked_chat = await seed.chat_id()
    other = await seed.chat_id()
    async with locked(database_url, locked_chat):
        claims = await work.claim_turns(seed.db, "w", 2)
        assert [claim.chat_id for claim in claims] == [other]
    assert [claim.chat_id for claim in await work.claim_turns(seed.db, "w", 2)] == [locked_chat]


@pytest.mark.parametrize("change", ["archived = true", "deleted_at = clock_timestamp()"])
async def test_archived_and_deleted_chats_are_not_claimed(seed: Seed, change: str) -> None:
    await seed.chat()
    await seed.db.fetch(f"UPDATE chats SET {change}")
    assert await work.claim_turns(seed.db, "w", 1) == []


async def test_what_is_queued_while_a_finish_waits_for_the_lock_is_promoted(
    seed: Seed, database_url: str
) -> None:
    claim = await seed.claimed("first")
    async with locked(database_url, claim.chat_id) as holder:
        sending = asyncio.create_task(seed.send(claim.chat_id, "second"))
        await holder.waiting(1)
        finishing = asyncio.create_task(finish(seed, claim, answer("done")))
        await holder.waiting(2)
    sent, ended = await sending, await finishing
    assert sent.turn["status"] == "queued"
    assert str(ended.promoted_id) == sent.turn["id"]
    assert (await seed.claim()).turn_id == ended.promoted_id


async def test_submits_racing_with_finishes_lose_nothing_and_keep_the_order(seed: Seed) -> None:
    claim = await seed.claimed("start")
    await finish(seed, claim)
    accepted: list[tuple[int, str]] = []

    async def submitter(name: str) -> None:
        for number in range(12):
            text = f"{name}{number}"
            while True:
                try:
                    sent = await seed.send(claim.chat_id, text)
                except TooMany:
                    await asyncio.sleep(0)
                    continue
                accepted.append((sent.version, text))
                break

    ended = 0

    async def worker() -> None:
        nonlocal ended
        while ended < 48:
            for ours in await work.claim_turns(seed.db, "w", 1):
                await finish(seed, ours, answer(f"to {ours.version}"))
                ended += 1

    async with asyncio.timeout(30):
        await asyncio.gather(*map(submitter, "abcd"), worker(), worker())
    texts = [text for _, text in sorted(accepted)]
    messages = await told(seed, claim.chat_id)
    assert [text for role, text in messages if role == "user"] == ["start", *texts]
    assert [role for role, _ in messages[1:]] == ["user", "assistant"] * 48
    assert len(texts) == 48 > MAX_QUEUED
    statuses = await seed.db.fetch("SELECT DISTINCT status FROM turns")
    assert [row["status"] for row in statuses] == ["completed"]
