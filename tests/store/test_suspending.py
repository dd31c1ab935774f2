"""Ending a suspended user's work: whatever state it is in, and whoever comes in between."""

import asyncio
from uuid import UUID

import pytest

from chatd.core.chats import ChatPatch
from chatd.core.errors import Conflict, LeaseLost, NotFound
from chatd.store import users, work
from chatd.store.db import Database
from chatd.store.editing import patch_chat
from chatd.store.erasing import delete_chats, erase_user
from chatd.store.family import Changed
from chatd.store.suspending import end_work, find_suspended_at_work, resume_queues
from chatd.store.sweeping import find_stranded, promote_stranded
from chatd.store.users import Changes
from tests.seed import Seed, make_user
from tests.store.working import (
    child_of,
    everything,
    finish,
    item_states,
    journal,
    park,
    statuses,
    version_of,
)
from tests.waiting import locked

SMALL = {"deployment_settings", "mcp_server_configs", "model_configs"}


async def end(seed: Seed) -> list[Changed]:
    await suspend(seed.db, seed.actor.user_id)
    return [changed async for changed in end_work(seed.db, seed.actor.user_id)]


async def suspend(db: Database, user_id: UUID) -> None:
    await db.fetch("UPDATE users SET suspended = true WHERE id = $1", user_id)


async def reactivate(db: Database, user_id: UUID) -> None:
    await db.fetch("UPDATE users SET suspended = false WHERE id = $1", user_id)


async def refuse_changes(db: Database, chat_id: UUID) -> None:
    """Every change of the chat's turns fails."""
    await db.fetch(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RAISE EXCEPTION ''no''; END'"
    )
    await db.fetch(
        "CREATE TRIGGER refuse BEFORE UPDATE ON turns FOR EACH ROW"
        f" WHEN (NEW.chat_id = '{chat_id}') EXECUTE FUNCTION refuse()"
    )


async def test_a_queue_is_cancelled_and_a_running_turn_may_commit_what_it_has(seed: Seed) -> None:
    claim = await seed.claimed()
    await seed.send(claim.chat_id)
    (changed,) = await end(seed)
    assert changed.stops == [claim.turn_id]
    assert changed.versions == {claim.chat_id: await version_of(seed, claim.chat_id)}
    assert await statuses(seed, claim.chat_id) == ["interrupting", "cancelled"]
    await finish(seed, claim)
    assert await statuses(seed, claim.chat_id) == ["interrupted", "cancelled"]


async def test_a_parked_turn_ends_with_what_it_waits_for(seed: Seed) -> None:
    claim = await seed.claimed()
    await park(seed, claim)
    await end(seed)
    assert await statuses(seed, claim.chat_id) == ["interrupted"]
    assert await item_states(seed, claim.chat_id) == ["cancelled"]
    assert "intended" not in [state for _, state in await journal(seed, claim)]


async def test_sub_agents_and_archived_chats_end_too(seed: Seed) -> None:
    root, archived = await seed.chat_id(), await seed.chat_id()
    child = await child_of(seed, root)
    await seed.send(archived)
    await patch_chat(seed.db, seed.actor, archived, ChatPatch(archived=True))
    assert await statuses(seed, archived) == ["interrupted", "queued"]
    changed = await end(seed)
    assert {chat_id for each in changed for chat_id in each.versions} == {root, child, archived}
    assert await statuses(seed, root) == await statuses(seed, child) == ["interrupted"]
    assert await statuses(seed, archived) == ["interrupted", "cancelled"]


async def test_a_second_time_changes_nothing_and_nobody_else_is_touched(seed: Seed) -> None:
    other = Seed(seed.db, await make_user(seed.db, "bob"), seed.model_id)
    theirs = await other.chat_id()
    await seed.chat_id()
    assert len(await end(seed)) == 1
    before = await everything(seed.db)
    assert await end(seed) == []
    assert await everything(seed.db) == before
    assert await statuses(other, theirs) == ["pending"]


async def test_what_comes_in_late_is_found_and_only_of_suspended_users(seed: Seed) -> None:
    assert await find_suspended_at_work(seed.db) == []
    await seed.chat_id()
    assert await find_suspended_at_work(seed.db) == []
    await suspend(seed.db, seed.actor.user_id)
    assert await find_suspended_at_work(seed.db) == [seed.actor.user_id]
    await reactivate(seed.db, seed.actor.user_id)
    claim = await seed.claim()
    await suspend(seed.db, seed.actor.user_id)
    assert await find_suspended_at_work(seed.db) == [seed.actor.user_id]
    await end(seed)
    assert await find_suspended_at_work(seed.db) == []
    assert await statuses(seed, claim.chat_id) == ["interrupting"]


@pytest.mark.parametrize("left", ["queued", "requires_action"])
async def test_a_queue_and_a_parked_turn_are_found_too(seed: Seed, left: str) -> None:
    claim = await seed.claimed()
    if left == "queued":
        await seed.send(claim.chat_id)
        await seed.db.fetch(
            """UPDATE turns SET status = 'failed', lease_id = NULL,
                finished_at = clock_timestamp() WHERE id = $1""",
            claim.turn_id,
        )
    else:
        await park(seed, claim)
    assert left in await statuses(seed, claim.chat_id)
    await suspend(seed.db, seed.actor.user_id)
    assert await find_suspended_at_work(seed.db) == [seed.actor.user_id]
    await end(seed)
    assert await find_suspended_at_work(seed.db) == []


@pytest.mark.parametrize("limited", [False, True])
async def test_a_suspended_users_turn_is_claimed_by_nobody(seed: Seed, *, limited: bool) -> None:
    other = Seed(seed.db, await make_user(seed.db, "bob"), seed.model_id)
    await seed.chat_id()
    theirs = await other.chat_id()
    await suspend(seed.db, seed.actor.user_id)
    if limited:
        await seed.db.fetch("UPDATE model_providers SET max_concurrent_turns = 1")
    claims = await work.claim_turns(seed.db, "w", 9, limited=limited)
    assert [claim.chat_id for claim in claims] == [theirs]


async def test_a_suspended_users_queue_is_not_stranded(seed: Seed) -> None:
    claim = await seed.claimed()
    await seed.send(claim.chat_id)
    await seed.db.fetch(
        """UPDATE turns SET status = 'completed', lease_id = NULL,
            finished_at = clock_timestamp() WHERE id = $1""",
        claim.turn_id,
    )
    assert await find_stranded(seed.db) == [claim.chat_id]
    await suspend(seed.db, seed.actor.user_id)
    assert await find_stranded(seed.db) == []
    assert await promote_stranded(seed.db, claim.chat_id) is None


async def test_what_a_user_begins_who_is_back_is_left_alone(seed: Seed, database_url: str) -> None:
    chat_id = await seed.chat_id()
    async with locked(database_url, chat_id) as holder:
        ending = asyncio.create_task(end(seed))
        await holder.waiting()
        await reactivate(seed.db, seed.actor.user_id)
    assert await ending == []
    assert await statuses(seed, chat_id) == ["pending"]


async def test_one_chat_that_cannot_be_ended_keeps_no_other_from_it(seed: Seed) -> None:
    bad, good = await seed.chat_id(), await seed.chat_id()
    await refuse_changes(seed.db, bad)
    (changed,) = await end(seed)
    assert list(changed.versions) == [good]
    assert await statuses(seed, bad) == ["pending"]


async def test_a_round_ends_a_few_and_the_next_one_the_others(seed: Seed) -> None:
    for _ in range(3):
        await seed.chat_id()
    await suspend(seed.db, seed.actor.user_id)
    ended = [[each async for each in end_work(seed.db, seed.actor.user_id, 2)] for _ in range(3)]
    assert [len(changed) for changed in ended] == [2, 1, 0]


async def test_the_heads_of_queues_go_on_but_not_in_archived_chats(seed: Seed) -> None:
    claim, archived = await seed.claimed(), await seed.chat_id()
    for chat_id in (claim.chat_id, archived):
        await seed.send(chat_id)
    await patch_chat(seed.db, seed.actor, archived, ChatPatch(archived=True))
    await seed.db.fetch(
        """UPDATE turns SET status = 'interrupted', lease_id = NULL,
            finished_at = clock_timestamp() WHERE id = $1""",
        claim.turn_id,
    )
    await suspend(seed.db, seed.actor.user_id)
    assert [each async for each in resume_queues(seed.db, seed.actor.user_id)] == []
    await reactivate(seed.db, seed.actor.user_id)
    changed = [each async for each in resume_queues(seed.db, seed.actor.user_id)]
    assert [list(each.versions) for each in changed] == [[claim.chat_id]]
    assert await statuses(seed, claim.chat_id) == ["interrupted", "pending"]
    assert await statuses(seed, archived) == ["interrupted", "queued"]


# --- erasing


async def erase(seed: Seed) -> list[UUID]:
    """The turns that were told to stop."""
    stops = [
        turn
        async for changed in delete_chats(seed.db, seed.actor.user_id)
        for turn in changed.stops
    ]
    await erase_user(seed.db, seed.actor.user_id)
    return stops


async def test_a_worker_that_still_has_a_turn_of_an_erased_user_writes_nothing(seed: Seed) -> None:
    claim = await seed.claimed()
    await child_of(seed, claim.chat_id)
    assert await erase(seed) == [claim.turn_id]
    with pytest.raises(LeaseLost):
        await finish(seed, claim)
    assert await everything(seed.db) == []
    assert await work.claim_turns(seed.db, "w", 9) == []


async def test_more_chats_than_go_at_once_all_go(seed: Seed) -> None:
    for _ in range(27):
        await seed.chat_id()
    await erase(seed)
    assert await everything(seed.db) == []


async def test_who_is_erased_is_not_found(seed: Seed) -> None:
    await erase(seed)
    with pytest.raises(NotFound):
        await erase_user(seed.db, seed.actor.user_id)


async def test_erasing_searches_no_messages_and_no_turns(seed: Seed) -> None:
    """A key to users without an index is read through for minutes, under the user's lock."""
    rows = await seed.db.fetch(
        """SELECT c.conrelid::regclass::text AS name FROM pg_constraint c
        WHERE c.contype = 'f' AND c.confrelid = 'users'::regclass AND NOT EXISTS (
            SELECT 1 FROM pg_index i WHERE i.indrelid = c.conrelid AND i.indkey[0] = c.conkey[1])
"""
    )
    assert {row["name"] for row in rows} == SMALL


async def test_nobody_else_loses_anything(seed: Seed) -> None:
    other = Seed(seed.db, await make_user(seed.db, "bob"), seed.model_id)
    theirs = await other.claimed()
    await park(other, theirs)
    before = await everything(seed.db)
    await seed.chat_id()
    await erase(seed)
    assert await everything(seed.db) == before


async def test_erasing_waits_for_whoever_has_a_chat_in_hand(seed: Seed, database_url: str) -> None:
    chat_id = await seed.chat_id()
    async with locked(database_url, chat_id) as holder:
        erasing = asyncio.create_task(erase(seed))
        await holder.waiting()
        assert not erasing.done()
    await erasing
    assert await everything(seed.db) == []


# --- the last administrator


async def test_the_last_administrator_is_kept_and_a_suspended_one_does_not_count(
    db: Database,
) -> None:
    ada, bob = await make_user(db, "ada", role="admin"), await make_user(db, "bob", role="admin")
    await suspend(db, bob.user_id)
    changes: list[Changes] = [{"role": "member"}, {"suspended": True}]
    for change in changes:
        with pytest.raises(Conflict, match="last administrator"):
            async with db.transaction() as session:
                await users.update_user(session, ada.user_id, change)
    with pytest.raises(Conflict, match="last administrator"):
        async with db.transaction() as session:
            await users.suspend_for_erasure(session, ada.user_id)
    async with db.transaction() as session:
        await users.update_user(session, bob.user_id, {"suspended": False})
        await users.update_user(session, ada.user_id, {"role": "member"})
