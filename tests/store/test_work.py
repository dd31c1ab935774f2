"""What workers write: messages in order, the journal, the end; and under which policy."""

import asyncio

import pytest

from chatd.core.errors import (
    LeaseLost,
    Stale,
)
from chatd.core.items import NewItem
from chatd.core.work import Claim, Held
from chatd.store import work
from chatd.store.chats import list_messages
from chatd.store.db import load
from chatd.store.ids import new_id
from chatd.store.items import open_item, park_turn
from tests.seed import Seed, answer, change_server, make_server
from tests.store.working import (
    CALLS,
    NOTICE,
    commit_calls,
    finish,
    item_states,
    journal,
    lose,
    outcome,
    result,
    told,
    turn_of,
)
from tests.waiting import one, transaction


async def test_a_step_its_results_and_the_end_are_history_in_order(seed: Seed) -> None:
    claim = await seed.claimed("2 + 1?")
    step = await commit_calls(seed, claim)
    results = await work.commit_results(
        seed.db, claim, [result(1), result(2)], [outcome(1), outcome(2)], []
    )
    ended = await finish(seed, claim, answer("3", 2))
    assert await told(seed, claim.chat_id) == [
        ("user", "2 + 1?"),
        ("assistant", "let me see"),
        ("tool", "3"),
        ("tool", "3"),
        ("assistant", "3"),
    ]
    assert [step.version, results.version, ended.version] == [3, 4, 5]
    assert (claim.version, step.commits, results.commits) == (2, 1, 2)
    found = await list_messages(seed.db, seed.actor.user_id, claim.chat_id)
    stored = [(message["id"], message["created_at"]) for message in reversed(found["messages"])]
    assert [*step.messages, *results.messages, *ended.messages] == stored[1:]
    turn = await turn_of(seed, claim)
    assert (turn["status"], turn["notices"]) == ("completed", [NOTICE])
    assert turn["started_at"] < turn["first_token_at"] < turn["finished_at"]


async def test_the_promoted_message_follows_the_last_answer(seed: Seed) -> None:
    claim = await seed.claimed("first")
    await seed.send(claim.chat_id, "second")
    ended = await finish(seed, claim, answer("done"))
    assert await told(seed, claim.chat_id) == [
        ("user", "first"),
        ("assistant", "done"),
        ("user", "second"),
    ]
    promoted = await seed.claim()
    assert promoted.turn_id == ended.promoted_id
    assert promoted.version == ended.version + 1


async def test_the_end_of_a_turn_tells_whether_others_are_pending(seed: Seed) -> None:
    first, second = await seed.claimed(), await seed.claimed()
    await seed.send(second.chat_id)
    assert (await finish(seed, first)).more is False
    await seed.chat()
    assert (await finish(seed, second)).more is True


async def test_a_failed_turn_promotes_nothing(seed: Seed) -> None:
    claim = await seed.claimed()
    await seed.send(claim.chat_id)
    assert (await finish(seed, claim, status="failed")).promoted_id is None
    assert (await turn_of(seed, claim))["error"]["kind"] == "generic"
    assert await work.claim_turns(seed.db, "w", 1) == []


async def test_an_archived_chat_promotes_nothing(seed: Seed) -> None:
    claim = await seed.claimed()
    await seed.send(claim.chat_id)
    await seed.db.fetch("UPDATE chats SET archived = true")
    assert (await finish(seed, claim)).promoted_id is None


async def test_a_turn_found_interrupting_ends_interrupted_without_an_error(seed: Seed) -> None:
    claim = await seed.claimed()
    await seed.db.fetch("UPDATE turns SET status = 'interrupting'")
    ended = await finish(seed, claim, answer("part"), status="failed")
    assert ended.status == "interrupted"
    turn = await turn_of(seed, claim)
    assert (turn["status"], turn["error"]) == ("interrupted", None)
    assert await told(seed, claim.chat_id) == [("user", "hello"), ("assistant", "part")]


async def test_the_journal_follows_a_call(seed: Seed) -> None:
    claim = await seed.claimed()
    await commit_calls(seed, claim)
    assert await journal(seed, claim) == [(1, "intended"), (2, "intended")]
    assert await work.mark_sent(seed.db, claim, 1, [1, 2], 1) == {1, 2}
    assert await journal(seed, claim) == [(1, "sent"), (2, "sent")]
    await work.record_result(seed.db, claim, outcome(2, "failed", "no"))
    assert await journal(seed, claim) == [(1, "sent"), (2, "failed")]
    kept = await one(seed.db, "SELECT result, finished_at FROM tool_calls WHERE position = 2")
    assert load(kept["result"])["result"] == "no"
    await work.commit_results(
        seed.db, claim, [result(1), result(2, "no")], [outcome(1), outcome(2, "failed", "no")], []
    )
    assert await journal(seed, claim) == [(1, "done"), (2, "failed")]
    later = await one(seed.db, "SELECT finished_at FROM tool_calls WHERE position = 2")
    assert later["finished_at"] == kept["finished_at"]


async def test_a_call_that_never_left_is_cancelled_not_unknown(seed: Seed) -> None:
    claim = await seed.claimed()
    await commit_calls(seed, claim)
    await work.mark_sent(seed.db, claim, 1, [2], 1)
    unknown = [outcome(1, "unknown"), outcome(2, "unknown")]
    await work.commit_results(seed.db, claim, [result(1), result(2)], unknown, [])
    assert await journal(seed, claim) == [(1, "cancelled"), (2, "unknown")]


async def test_a_closed_call_may_not_leave(seed: Seed) -> None:
    claim = await seed.claimed()
    await commit_calls(seed, claim)
    await seed.db.fetch("UPDATE tool_calls SET state = 'cancelled' WHERE position = 1")
    assert await work.mark_sent(seed.db, claim, 1, [1, 2], 1) == {2}


async def test_with_an_old_policy_nothing_is_sent(seed: Seed) -> None:
    server = await make_server(seed.db)
    version = (await one(seed.db, "SELECT version FROM policy_state"))["version"]
    claim = await seed.claimed()
    await commit_calls(seed, claim)
    await change_server(seed.db, server, tool_deny_list=("add",))
    with pytest.raises(Stale):
        await work.mark_sent(seed.db, claim, 1, [1, 2], version)
    assert await journal(seed, claim) == [(1, "intended"), (2, "intended")]
    assert await work.mark_sent(seed.db, claim, 1, [1, 2], version + 1) == {1, 2}


async def test_a_policy_change_that_commits_first_wins(seed: Seed, database_url: str) -> None:
    claim = await seed.claimed()
    await commit_calls(seed, claim)
    async with transaction(database_url) as administrator:
        await administrator.execute("UPDATE policy_state SET version = version + 1")
        sending = asyncio.create_task(work.mark_sent(seed.db, claim, 1, [1], 1))
        await administrator.waiting()
    with pytest.raises(Stale):
        await sending
    assert await journal(seed, claim) == [(1, "intended"), (2, "intended")]


async def test_the_renewal_brings_status_and_policy(seed: Seed) -> None:
    claim = await seed.claimed()
    server = await make_server(seed.db)
    await change_server(seed.db, server, enabled=False)
    before = await one(seed.db, "SELECT lease_expires_at AS until FROM turns")
    await seed.db.fetch("UPDATE turns SET status = 'interrupting'")
    held = await work.renew_leases(seed.db, [claim])
    assert held[claim.turn_id] == Held("interrupting", 2)
    after = await one(seed.db, "SELECT lease_expires_at AS until FROM turns")
    assert after["until"] > before["until"]


async def test_a_turn_whose_row_is_locked_is_still_owned(seed: Seed, database_url: str) -> None:
    claim, other = await seed.claimed(), await seed.claimed()
    async with transaction(database_url) as holder:
        await holder.execute("SELECT 1 FROM turns WHERE id = $1 FOR UPDATE", claim.turn_id)
        assert set(await work.renew_leases(seed.db, [claim, other])) == {other.turn_id}
        assert await work.owned(seed.db, [claim, other]) == {claim.turn_id, other.turn_id}


async def test_handing_back_uses_up_no_loss(seed: Seed) -> None:
    claim = await seed.claimed()
    await lose(seed, claim)
    again = await seed.claim()
    for attempt in range(2, 8):
        assert again.attempt == attempt
        await work.hand_back(seed.db, again)
        again = await seed.claim()
    assert (await one(seed.db, "SELECT lost FROM turns"))["lost"] == 1


async def test_a_turn_that_is_being_stopped_is_not_handed_back(seed: Seed) -> None:
    claim = await seed.claimed()
    await seed.db.fetch("UPDATE turns SET status = 'interrupting'")
    with pytest.raises(LeaseLost):
        await work.hand_back(seed.db, claim)
    assert (await finish(seed, claim)).status == "interrupted"


async def test_a_turn_that_was_stopped_sends_nothing_more(seed: Seed) -> None:
    claim = await seed.claimed()
    await commit_calls(seed, claim)
    await seed.db.fetch("UPDATE turns SET status = 'interrupting' WHERE id = $1", claim.turn_id)
    assert await work.mark_sent(seed.db, claim, 1, [1, 2], 1) == frozenset()
    assert await journal(seed, claim) == [(1, "intended"), (2, "intended")]


# --- questions of open calls


async def asked(seed: Seed, claim: Claim) -> None:
    """A call that was sent has asked its user, and nobody has taken that back."""
    await commit_calls(seed, claim)
    question = NewItem("elicitation", {"message": "Who?"}, 3600.0)
    await open_item(seed.db, claim, new_id(), CALLS[0], question)


async def test_a_question_is_put_once_however_often_it_is_written(seed: Seed) -> None:
    claim = await seed.claimed()
    item_id, question = new_id(), NewItem("elicitation", {"message": "Who?"}, 3600.0)
    for _ in range(2):
        await open_item(seed.db, claim, item_id, CALLS[0], question)
    assert await item_states(seed, claim.chat_id) == ["open"]


async def test_an_ended_turn_asks_nothing_more(seed: Seed) -> None:
    claim = await seed.claimed()
    await asked(seed, claim)
    ended = await finish(seed, claim)
    (item,) = await seed.db.fetch("SELECT state, version FROM open_items")
    assert (item["state"], item["version"]) == ("cancelled", ended.version)


async def test_a_turn_that_is_handed_back_asks_nothing_more(seed: Seed) -> None:
    claim = await seed.claimed()
    await asked(seed, claim)
    await work.hand_back(seed.db, claim)
    assert await item_states(seed, claim.chat_id) == ["cancelled"]


async def test_a_question_nobody_took_back_does_not_hold_up_a_turn_that_parks(seed: Seed) -> None:
    claim = await seed.claimed()
    await asked(seed, claim)
    waits = NewItem("tool_result", {"tool_name": "demo__add"})
    await park_turn(seed.db, claim, 1, [outcome(2)], [(CALLS[0], waits)], [])
    rows = await seed.db.fetch("SELECT kind FROM open_items WHERE state = 'open'")
    assert [row["kind"] for row in rows] == ["tool_result"]
