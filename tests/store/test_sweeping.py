"""What a sweeper finds and mends, and that two of them are harmless."""

import asyncio

import pytest

from chatd.core.work import Claim
from chatd.store import sweeping, work
from chatd.store.chats import get_chat, list_messages
from chatd.store.stopping import INTERRUPTED
from tests.seed import Seed, answer
from tests.store.working import (
    commit_calls,
    finish,
    journal,
    lose,
    outcome,
    result,
    run_out,
    statuses,
    told,
    turn_of,
)
from tests.waiting import locked, one


async def lost(seed: Seed) -> int:
    return (await one(seed.db, "SELECT lost FROM turns"))["lost"]


async def strand(seed: Seed, claim: Claim, ended: str = "completed") -> None:
    """The turn's end, without the promotion that belongs to it."""
    await seed.db.fetch(
        "UPDATE turns SET status = $2, lease_id = NULL, finished_at = clock_timestamp()"
        " WHERE id = $1",
        claim.turn_id,
        ended,
    )


# --- leases


async def test_a_live_lease_is_left_alone(seed: Seed) -> None:
    claim = await seed.claimed()
    assert await sweeping.find_expired(seed.db) == []
    assert await sweeping.expire_turn(seed.db, claim.turn_id, claim.chat_id) is None
    assert (await turn_of(seed, claim))["status"] == "running"


async def test_a_turn_whose_worker_is_lost_is_runnable_again(seed: Seed) -> None:
    claim = await seed.claimed()
    await run_out(seed, claim)
    assert await sweeping.find_expired(seed.db) == [(claim.turn_id, claim.chat_id)]
    version = await sweeping.expire_turn(seed.db, claim.turn_id, claim.chat_id)
    assert version == claim.version + 1
    again = await seed.claim()
    assert (again.turn_id, again.attempt, again.version) == (claim.turn_id, 2, claim.version + 2)


async def test_the_third_loss_fails_the_turn_and_leaves_nothing_open(seed: Seed) -> None:
    claim = await seed.claimed()
    await commit_calls(seed, claim)
    await work.mark_sent(seed.db, claim, 1, [2], 1)
    await seed.send(claim.chat_id, "queued")
    for _ in range(3):
        await lose(seed, claim)
        if await work.claim_turns(seed.db, "w", 1) == []:
            break
    turn = await turn_of(seed, claim)
    assert (turn["status"], turn["error"]["kind"]) == ("failed", "worker_lost")
    assert turn["attempt"] == 3
    assert await journal(seed, claim) == [(1, "cancelled"), (2, "unknown")]
    assert await told(seed, claim.chat_id) == [
        ("user", "hello"),
        ("assistant", "let me see"),
        ("tool", INTERRUPTED),
        ("tool", INTERRUPTED),
    ]
    found = await list_messages(seed.db, seed.actor.user_id, claim.chat_id)
    tools = [message["content"][0] for message in found["messages"][:2]]
    assert [part["tool_call_id"] for part in tools] == ["call-1-2", "call-1-1"]
    assert all(part["is_error"] and part["type"] == "tool-result" for part in tools)
    assert await statuses(seed, claim.chat_id) == ["failed", "queued"]
    assert (await get_chat(seed.db, seed.actor.user_id, claim.chat_id))["status"] == "error"


async def test_a_committed_step_forgives_the_losses_before_it(seed: Seed) -> None:
    claim = await seed.claimed()
    for _ in range(2):
        await lose(seed, claim)
        claim = await seed.claim()
    assert await lost(seed) == 2
    await commit_calls(seed, claim)
    assert await lost(seed) == 0
    await lose(seed, claim)
    claim = await seed.claim()
    await work.commit_results(seed.db, claim, [result(1), result(2)], [outcome(1), outcome(2)], [])
    assert await lost(seed) == 0


async def test_an_expired_stop_ends_interrupted_and_promotes(seed: Seed) -> None:
    claim = await seed.claimed()
    await commit_calls(seed, claim)
    await work.mark_sent(seed.db, claim, 1, [1, 2], 1)
    await work.record_result(seed.db, claim, outcome(1, text="kept"))
    await seed.send(claim.chat_id, "next")
    await seed.db.fetch("UPDATE turns SET status = 'interrupting' WHERE id = $1", claim.turn_id)
    await lose(seed, claim)
    assert await statuses(seed, claim.chat_id) == ["interrupted", "pending"]
    assert await journal(seed, claim) == [(1, "done"), (2, "unknown")]
    assert (await told(seed, claim.chat_id))[-3:] == [
        ("tool", "kept"),
        ("tool", INTERRUPTED),
        ("user", "next"),
    ]
    assert (await turn_of(seed, claim))["error"] is None


async def test_an_expired_stop_in_an_archived_chat_promotes_nothing(seed: Seed) -> None:
    claim = await seed.claimed()
    await seed.send(claim.chat_id)
    await seed.db.fetch("UPDATE turns SET status = 'interrupting' WHERE id = $1", claim.turn_id)
    await seed.db.fetch("UPDATE chats SET archived = true")
    await lose(seed, claim)
    assert await statuses(seed, claim.chat_id) == ["interrupted", "queued"]


async def test_two_sweepers_expire_a_turn_once(seed: Seed, database_url: str) -> None:
    claim = await seed.claimed()
    await run_out(seed, claim)
    async with locked(database_url, claim.chat_id) as holder:
        both = asyncio.gather(
            *(sweeping.expire_turn(seed.db, claim.turn_id, claim.chat_id) for _ in range(2))
        )
        await holder.waiting(2)
    assert sorted(await both, key=str) == [claim.version + 1, None]
    assert await lost(seed) == 1


async def test_a_turn_renewed_at_the_last_moment_is_left_alone(
    seed: Seed, database_url: str
) -> None:
    claim = await seed.claimed()
    await run_out(seed, claim)
    async with locked(database_url, claim.chat_id) as holder:
        sweep = asyncio.create_task(sweeping.expire_turn(seed.db, claim.turn_id, claim.chat_id))
        await holder.waiting()
        assert await work.renew_leases(seed.db, [claim])
    assert await sweep is None
    await finish(seed, claim)


# --- queues


async def test_a_queue_that_nothing_moves_is_moved(seed: Seed) -> None:
    claim = await seed.claimed("first")
    await seed.send(claim.chat_id, "second")
    assert await sweeping.find_stranded(seed.db) == []
    await strand(seed, claim)
    assert await sweeping.find_stranded(seed.db) == [claim.chat_id]
    version = await sweeping.promote_stranded(seed.db, claim.chat_id)
    assert await told(seed, claim.chat_id) == [("user", "first"), ("user", "second")]
    assert (await seed.claim()).version == (version or 0) + 1


@pytest.mark.parametrize("why", ["last turn failed", "archived", "deleted"])
async def test_a_queue_that_has_to_wait_is_not_moved(seed: Seed, why: str) -> None:
    claim = await seed.claimed()
    await seed.send(claim.chat_id)
    await strand(seed, claim, "failed" if why == "last turn failed" else "completed")
    if why == "archived":
        await seed.db.fetch("UPDATE chats SET archived = true")
    if why == "deleted":
        await seed.db.fetch("UPDATE chats SET deleted_at = clock_timestamp()")
    before = await one(seed.db, "SELECT version FROM chats")
    assert await sweeping.find_stranded(seed.db) == []
    # Found a moment ago, before that was so: the rule is asked again under the lock.
    assert await sweeping.promote_stranded(seed.db, claim.chat_id) is None
    assert await one(seed.db, "SELECT version FROM chats") == before


async def test_two_sweepers_promote_one_turn(seed: Seed, database_url: str) -> None:
    claim = await seed.claimed()
    await seed.send(claim.chat_id)
    await seed.send(claim.chat_id)
    await strand(seed, claim)
    async with locked(database_url, claim.chat_id) as holder:
        both = asyncio.gather(
            *(sweeping.promote_stranded(seed.db, claim.chat_id) for _ in range(2))
        )
        await holder.waiting(2)
    assert sorted(version is None for version in await both) == [False, True]
    assert await statuses(seed, claim.chat_id) == ["completed", "pending", "queued"]


async def test_turns_that_nobody_took_for_two_seconds_are_counted(seed: Seed) -> None:
    await seed.chat()
    await seed.chat()
    assert await sweeping.count_unclaimed(seed.db) == 0
    await seed.db.fetch("UPDATE turns SET pending_at = pending_at - interval '2 seconds'")
    assert await sweeping.count_unclaimed(seed.db) == 2
    claim = await seed.claim()
    assert await sweeping.count_unclaimed(seed.db) == 1
    await finish(seed, claim, answer("x"))
    assert await sweeping.count_unclaimed(seed.db) == 1
