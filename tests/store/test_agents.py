"""Sub-agents in the store: limits, fences, and the race between parking and their ends."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from chatd.core.agents import MAX_ACTIVE, MAX_SPAWNED, USER_SPOKE, NewAgent
from chatd.core.chats import ChatPatch
from chatd.core.errors import Conflict, LeaseLost, NotFound, TooMany
from chatd.core.items import NewItem
from chatd.core.work import Claim
from chatd.store.agents import list_agents, look
from chatd.store.editing import delete_chat, patch_chat
from chatd.store.ids import new_id
from chatd.store.informing import end_wait, find_waits_over
from chatd.store.items import ParkedTurn, park_turn
from chatd.store.queueing import interrupt_chat
from chatd.store.spawning import spawn, speak, stop
from chatd.store.work import claim_turns, commit_step
from tests.seed import Seed, answer, planned_call
from tests.store.working import everything, finish, lose, queue, statuses
from tests.waiting import locked, one

WAIT = planned_call(1, name="wait_agent", safe=True)


def agent(**changes: Any) -> NewAgent:
    values: dict[str, Any] = {
        "chat_id": new_id(), "turn_id": new_id(), "type": "general", "prompt": "look",
    }  # fmt: skip
    return NewAgent(**(values | changes))


async def spawned(seed: Seed, claim: Claim, **changes: Any) -> UUID:
    new = agent(**changes)
    await spawn(seed.db, claim, new)
    return new.chat_id


async def waiting(seed: Seed, claim: Claim, child: UUID) -> None:
    """The turn has called wait_agent."""
    await commit_step(seed.db, claim, [answer("", 1, WAIT)], [WAIT], [], None)


async def park(seed: Seed, claim: Claim, child: UUID) -> ParkedTurn:
    item = NewItem("child", {}, 300.0, child_chat_id=child)
    return await park_turn(seed.db, claim, 1, [], [(WAIT, item)], [])


async def parked(seed: Seed) -> tuple[Claim, UUID]:
    """A turn that waits for an agent which is runnable."""
    claim = await seed.claimed()
    child = await spawned(seed, claim)
    await waiting(seed, claim, child)
    assert (await park(seed, claim, child)).status == "requires_action"
    return claim, child


async def answers(seed: Seed) -> list[Any]:
    rows = await seed.db.fetch("SELECT state, answer->>'status' AS said FROM open_items")
    return [(row["state"], row["said"]) for row in rows]


# --- parking looks first


async def test_a_wait_for_an_agent_that_has_just_ended_parks_nothing(seed: Seed) -> None:
    claim = await seed.claimed()
    child = await spawned(seed, claim)
    await waiting(seed, claim, child)
    await finish(seed, await seed.claim(), answer("here it is"))
    assert (await park(seed, claim, child)).status == "pending"
    assert await answers(seed) == [("answered", "completed")]
    assert (await seed.claim()).turn_id == claim.turn_id


async def test_a_wait_behind_a_message_of_the_user_parks_nothing(seed: Seed) -> None:
    claim = await seed.claimed()
    child = await spawned(seed, claim)
    await waiting(seed, claim, child)
    await seed.send(claim.chat_id)
    assert (await park(seed, claim, child)).status == "pending"
    row = await one(seed.db, "SELECT answer->>'reason' AS reason FROM open_items")
    assert row["reason"] == USER_SPOKE


async def test_one_of_two_agents_that_has_ended_does_not_end_the_wait_for_the_other(
    seed: Seed,
) -> None:
    claim = await seed.claimed()
    first, second = await spawned(seed, claim), await spawned(seed, claim)
    other = planned_call(2, name="wait_agent", safe=True)
    calls = [WAIT, other]
    await commit_step(seed.db, claim, [answer("", 1, *calls)], calls, [], None)
    done = await seed.claim()
    await finish(seed, done)
    items = [NewItem("child", {}, 300.0, child_chat_id=chat_id) for chat_id in (first, second)]
    both = list(zip(calls, items, strict=True))
    assert (await park_turn(seed.db, claim, 1, [], both, [])).status == "requires_action"
    assert sorted(state for state, _ in await answers(seed)) == ["answered", "open"]


async def test_parking_waits_for_whoever_is_changing_the_agent(
    seed: Seed, database_url: str
) -> None:
    claim = await seed.claimed()
    child = await spawned(seed, claim)
    await waiting(seed, claim, child)
    async with locked(database_url, child) as holder:
        parking = asyncio.create_task(park(seed, claim, child))
        await holder.waiting()
        await holder.execute(
            "UPDATE turns SET status = 'interrupted', finished_at = clock_timestamp()"
            " WHERE chat_id = $1",
            child,
        )
    assert (await parking).status == "pending"
    assert await answers(seed) == [("answered", "interrupted")]


# --- ending a wait


async def test_a_wait_ends_once_and_only_when_there_is_an_answer(seed: Seed) -> None:
    claim, child = await parked(seed)
    row = await one(seed.db, "SELECT id FROM open_items")
    assert await find_waits_over(seed.db) == []
    assert await end_wait(seed.db, row["id"], claim.chat_id) is None
    await finish(seed, await seed.claim())
    found = await find_waits_over(seed.db, child)
    assert found == [(row["id"], claim.chat_id)]
    assert await find_waits_over(seed.db, new_id()) == []
    both = await asyncio.gather(*(end_wait(seed.db, *found[0]) for _ in range(2)))
    assert sorted(both, key=bool) == [None, both[0] or both[1]]
    assert await statuses(seed, claim.chat_id) == ["pending"]


async def test_a_wait_goes_on_while_the_agent_has_something_queued(seed: Seed) -> None:
    _, child = await parked(seed)
    running = await seed.claim()
    await seed.send(child)
    await finish(seed, running)
    assert await find_waits_over(seed.db) == []


async def test_a_failed_agent_is_settled_though_it_keeps_its_queue(seed: Seed) -> None:
    _, child = await parked(seed)
    running = await seed.claim()
    await seed.send(child)
    await finish(seed, running, status="failed")
    assert len(await find_waits_over(seed.db)) == 1


async def test_a_wait_that_was_cancelled_is_left_alone(seed: Seed) -> None:
    claim, child = await parked(seed)
    await interrupt_chat(seed.db, seed.actor, claim.chat_id)
    assert await answers(seed) == [("cancelled", None)]
    assert await find_waits_over(seed.db, child) == []


# --- who may start agents, and how many


async def test_a_worker_that_has_lost_its_lease_starts_and_says_nothing(seed: Seed) -> None:
    claim = await seed.claimed()
    child = await spawned(seed, claim)
    await claim_turns(seed.db, "other", 1)
    await lose(seed, claim)
    before = await everything(seed.db)
    for write in (
        spawn(seed.db, claim, agent()),
        speak(seed.db, claim, child, "more", turn_id=new_id(), interrupt=True),
        stop(seed.db, claim, child),
    ):
        with pytest.raises(LeaseLost):
            await write
    assert await everything(seed.db) == before


async def test_a_stopped_turn_starts_nothing(seed: Seed) -> None:
    claim = await seed.claimed()
    await interrupt_chat(seed.db, seed.actor, claim.chat_id)
    with pytest.raises(Conflict, match="stopped"):
        await spawn(seed.db, claim, agent())


async def test_agents_cannot_have_agents(seed: Seed) -> None:
    await spawned(seed, await seed.claimed())
    child = await seed.claim()
    with pytest.raises(Conflict, match="cannot have"):
        await spawn(seed.db, child, agent())


async def test_so_many_agents_are_at_work_and_no_more(seed: Seed) -> None:
    claim = await seed.claimed()
    children = [await spawned(seed, claim) for _ in range(MAX_ACTIVE)]
    with pytest.raises(TooMany, match="at work"):
        await spawn(seed.db, claim, agent())
    await interrupt_chat(seed.db, seed.actor, children[0])
    await spawned(seed, claim)


async def test_agents_started_at_once_do_not_pass_the_limit(seed: Seed) -> None:
    claim = await seed.claimed()
    tries = (spawn(seed.db, claim, agent()) for _ in range(MAX_ACTIVE + 3))
    made = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(one_of, TooMany) for one_of in made) == 3
    assert len(await list_agents(seed.db, claim.chat_id)) == MAX_ACTIVE


async def test_a_turn_starts_so_many_agents_and_no_more(seed: Seed) -> None:
    claim = await seed.claimed()
    for _ in range(MAX_SPAWNED):
        await delete_chat(seed.db, seed.actor, await spawned(seed, claim))
    with pytest.raises(TooMany, match="may start no more"):
        await spawn(seed.db, claim, agent())


async def test_the_same_agent_twice_is_one(seed: Seed) -> None:
    claim = await seed.claimed()
    new = agent()
    first, second = await asyncio.gather(*(spawn(seed.db, claim, new) for _ in range(2)))
    assert first.agent == second.agent
    assert await statuses(seed, new.chat_id) == ["pending"]


# --- speaking to agents


async def test_the_same_message_twice_is_one(seed: Seed) -> None:
    claim = await seed.claimed()
    child, turn_id = await spawned(seed, claim), new_id()
    for _ in range(2):
        await speak(seed.db, claim, child, "more", turn_id=turn_id, interrupt=False)
    assert await queue(seed, child) == ["more"]


async def test_a_message_that_interrupts_an_idle_agent_is_not_stopped_itself(seed: Seed) -> None:
    claim = await seed.claimed()
    child = await spawned(seed, claim)
    await finish(seed, await seed.claim())
    await speak(seed.db, claim, child, "more", turn_id=new_id(), interrupt=True)
    assert await statuses(seed, child) == ["completed", "pending"]


async def test_a_running_agent_is_told_to_stop(seed: Seed) -> None:
    claim = await seed.claimed()
    child = await spawned(seed, claim)
    running = await seed.claim()
    told = await speak(seed.db, claim, child, "more", turn_id=new_id(), interrupt=True)
    assert told.changed.stops == [running.turn_id]
    assert await statuses(seed, child) == ["interrupting", "queued"]


async def test_an_archived_agent_is_not_spoken_to(seed: Seed) -> None:
    claim = await seed.claimed()
    child = await spawned(seed, claim)
    await patch_chat(seed.db, seed.actor, child, ChatPatch(archived=True))
    with pytest.raises(Conflict, match="archived"):
        await speak(seed.db, claim, child, "more", turn_id=new_id(), interrupt=False)


async def test_nobody_elses_agent_is_seen_or_spoken_to(seed: Seed) -> None:
    claim = await seed.claimed()
    child = await spawned(seed, claim)
    await seed.claim()
    other = await seed.claimed()
    assert await look(seed.db, other.chat_id, child) is None
    for write in (
        speak(seed.db, other, child, "more", turn_id=new_id(), interrupt=False),
        stop(seed.db, other, child),
    ):
        with pytest.raises(NotFound):
            await write
    assert await statuses(seed, child) == ["running"]
