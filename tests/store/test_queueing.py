"""Interrupting a turn, and what waits: in its order, out of it, before all others."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from chatd.core.chats import MAX_QUEUED, ChatPatch, Once
from chatd.core.errors import BadRequest, Conflict, NotFound, TooMany
from chatd.core.work import Claim
from chatd.store import work
from chatd.store.editing import patch_chat
from chatd.store.queueing import delete_queued, interrupt_chat, promote_queued
from chatd.store.stopping import INTERRUPTED
from tests.seed import Seed, answer, make_server, make_user
from tests.store.working import (
    child_of,
    commit_calls,
    everything,
    finish,
    item_states,
    journal,
    park,
    queue,
    statuses,
    told,
    version_of,
)
from tests.waiting import locked

ARCHIVE = ChatPatch(archived=True)
ONCE = Once("/chats/x/messages", "key", b"x" * 32)


async def interrupt(seed: Seed, chat_id: UUID, turn_id: UUID | None = None) -> Any:
    return await interrupt_chat(seed.db, seed.actor, chat_id, turn_id)


async def queued(seed: Seed, chat_id: UUID, words: str = "queued") -> UUID:
    """One more turn behind the active one."""
    accepted = await seed.send(chat_id, words)
    assert accepted.turn["status"] == "queued"
    return UUID(accepted.turn["id"])


# --- interrupting


async def test_a_running_turn_is_stopped_by_its_worker_and_then_the_head_runs(seed: Seed) -> None:
    claim = await seed.claimed("first")
    await queued(seed, claim.chat_id, "second")
    changed = await interrupt(seed, claim.chat_id)
    assert changed.stops == [claim.turn_id]
    assert changed.versions == {claim.chat_id: await version_of(seed, claim.chat_id)}
    assert await statuses(seed, claim.chat_id) == ["interrupting", "queued"]
    await finish(seed, claim, answer("as far as I g"))
    assert await statuses(seed, claim.chat_id) == ["interrupted", "pending"]
    assert await told(seed, claim.chat_id) == [
        ("user", "first"),
        ("assistant", "as far as I g"),
        ("user", "second"),
    ]


async def test_a_pending_turn_ends_at_once_and_the_head_runs(seed: Seed) -> None:
    chat_id = await seed.chat_id("first")
    await queued(seed, chat_id, "second")
    changed = await interrupt(seed, chat_id)
    assert (changed.stops, changed.versions) == ([], {chat_id: 3})
    assert await statuses(seed, chat_id) == ["interrupted", "pending"]
    assert await told(seed, chat_id) == [("user", "first"), ("user", "second")]


async def test_a_waiting_turn_ends_with_its_calls_answered_before_the_next_message(
    seed: Seed,
) -> None:
    claim = await seed.claimed("first")
    await park(seed, claim)
    await queued(seed, claim.chat_id, "second")
    assert (await interrupt(seed, claim.chat_id)).stops == []
    assert await statuses(seed, claim.chat_id) == ["interrupted", "pending"]
    assert await journal(seed, claim) == [(1, "unknown"), (2, "done")]
    assert await item_states(seed, claim.chat_id) == ["cancelled"]
    assert (await told(seed, claim.chat_id))[2:] == [
        ("tool", INTERRUPTED),
        ("tool", "3"),
        ("user", "second"),
    ]


@pytest.mark.parametrize("status", ["completed", "failed"])
async def test_an_idle_chat_is_left_as_it_is(seed: Seed, status: str) -> None:
    claim = await seed.claimed()
    await queued(seed, claim.chat_id)
    if status == "completed":
        await delete_queued(seed.db, seed.actor, claim.chat_id, await last_turn(seed, claim))
    await finish(seed, claim, status=status)
    before = await everything(seed.db)
    assert (await interrupt(seed, claim.chat_id)).versions == {}
    assert await everything(seed.db) == before


async def last_turn(seed: Seed, claim: Claim) -> UUID:
    rows = await seed.db.fetch(
        "SELECT id FROM turns WHERE chat_id = $1 ORDER BY position DESC LIMIT 1", claim.chat_id
    )
    return rows[0]["id"]


async def test_stopping_twice_changes_nothing_more(seed: Seed) -> None:
    claim = await seed.claimed()
    await interrupt(seed, claim.chat_id)
    before = await everything(seed.db)
    assert (await interrupt(seed, claim.chat_id)).versions == {}
    assert await everything(seed.db) == before


async def test_only_the_named_turn_is_stopped(seed: Seed) -> None:
    claim = await seed.claimed()
    waiting = await queued(seed, claim.chat_id)
    before = await everything(seed.db)
    for turn_id in (waiting, uuid4()):
        assert (await interrupt(seed, claim.chat_id, turn_id)).versions == {}
    assert await everything(seed.db) == before
    assert (await interrupt(seed, claim.chat_id, claim.turn_id)).stops == [claim.turn_id]


async def test_the_turns_of_chats_below_are_stopped_too(seed: Seed) -> None:
    claim = await seed.claimed()
    child = await child_of(seed, claim.chat_id)
    grandchild = await child_of(seed, claim.chat_id)
    await seed.db.fetch("UPDATE chats SET parent_chat_id = $2 WHERE id = $1", grandchild, child)
    await queued(seed, child, "the child's second")
    changed = await interrupt(seed, claim.chat_id)
    assert changed.versions == {
        chat_id: await version_of(seed, chat_id) for chat_id in (claim.chat_id, child, grandchild)
    }
    assert await statuses(seed, child) == ["interrupted", "pending"]
    assert await statuses(seed, grandchild) == ["interrupted"]


async def test_stopping_a_child_leaves_those_above_running(seed: Seed) -> None:
    claim = await seed.claimed()
    child = await child_of(seed, claim.chat_id)
    await interrupt(seed, child)
    assert await statuses(seed, claim.chat_id) == ["running"]
    assert await statuses(seed, child) == ["interrupted"]


async def test_an_archived_chat_does_not_go_on_with_its_queue(seed: Seed) -> None:
    chat_id = await seed.chat_id()
    await queued(seed, chat_id)
    await seed.db.fetch("UPDATE chats SET archived = true")
    await interrupt(seed, chat_id)
    assert await statuses(seed, chat_id) == ["interrupted", "queued"]


# --- a message that interrupts


async def test_a_message_that_interrupts_waits_for_the_partial_answer(seed: Seed) -> None:
    claim = await seed.claimed("first")
    sent = await seed.send(claim.chat_id, "no, this", interrupt=True)
    assert (sent.turn["status"], sent.message) == ("queued", None)
    assert sent.changed.stops == [claim.turn_id]
    assert sent.version == sent.changed.versions[claim.chat_id]
    await finish(seed, claim, answer("part"))
    assert [text for _, text in await told(seed, claim.chat_id)] == ["first", "part", "no, this"]


async def test_a_message_that_ends_a_waiting_turn_runs_at_once(seed: Seed) -> None:
    claim = await seed.claimed("first")
    await park(seed, claim)
    sent = await seed.send(claim.chat_id, "no, this", interrupt=True)
    assert sent.turn["status"] == "pending"
    assert sent.message["content"][0]["text"] == "no, this"
    assert sent.message["id"] == sent.turn["user_message_id"]
    assert await statuses(seed, claim.chat_id) == ["interrupted", "pending"]
    assert await item_states(seed, claim.chat_id) == ["cancelled"]
    assert (await told(seed, claim.chat_id))[2] == ("tool", INTERRUPTED)


async def test_a_message_that_interrupts_joins_the_end_of_the_queue(seed: Seed) -> None:
    chat_id = await seed.chat_id("first")
    await queued(seed, chat_id, "second")
    sent = await seed.send(chat_id, "third", interrupt=True)
    assert sent.turn["status"] == "queued"
    assert await statuses(seed, chat_id) == ["interrupted", "pending", "queued"]
    assert await queue(seed, chat_id) == ["third"]


async def test_a_message_that_interrupts_nothing_is_like_any_other(seed: Seed) -> None:
    claim = await seed.claimed("first")
    await finish(seed, claim)
    sent = await seed.send(claim.chat_id, "second", interrupt=True)
    assert (sent.turn["status"], sent.changed.stops) == ("pending", [])
    await queued(seed, claim.chat_id, "third")
    await finish(seed, await seed.claim(), status="failed")
    sent = await seed.send(claim.chat_id, "fourth", interrupt=True)
    assert await statuses(seed, claim.chat_id) == ["completed", "failed", "pending", "queued"]


async def test_an_interrupting_message_that_is_refused_stops_nothing(seed: Seed) -> None:
    claim = await seed.claimed()
    for number in range(MAX_QUEUED):
        await queued(seed, claim.chat_id, f"{number}")
    before = await everything(seed.db)
    with pytest.raises(TooMany):
        await seed.send(claim.chat_id, interrupt=True)
    with pytest.raises(BadRequest):
        await seed.send(claim.chat_id, interrupt=True, model_config_id=uuid4())
    with pytest.raises(NotFound):
        await seed.send(uuid4(), interrupt=True)
    assert await everything(seed.db) == before


async def test_an_interrupting_message_sent_twice_under_one_key_interrupts_once(
    seed: Seed,
) -> None:
    claim = await seed.claimed("first")
    sent = await seed.send(claim.chat_id, "second", ONCE, interrupt=True)
    await finish(seed, claim)
    running = await seed.claim()
    assert str(running.turn_id) == sent.turn["id"]
    again = await seed.send(claim.chat_id, "second", ONCE, interrupt=True)
    assert (again.turn["id"], again.version, again.changed.stops) == (sent.turn["id"], 0, [])
    assert await statuses(seed, claim.chat_id) == ["interrupted", "running"]


# --- the queue


async def test_a_queued_message_is_taken_out(seed: Seed) -> None:
    chat_id = await seed.chat_id("first")
    second, _ = await queued(seed, chat_id, "second"), await queued(seed, chat_id, "third")
    changed = await delete_queued(seed.db, seed.actor, chat_id, second)
    assert changed.versions == {chat_id: await version_of(seed, chat_id)}
    assert await statuses(seed, chat_id) == ["pending", "cancelled", "queued"]
    assert await queue(seed, chat_id) == ["third"]


async def test_a_promoted_message_stops_the_running_turn_and_is_next(seed: Seed) -> None:
    claim = await seed.claimed("first")
    await queued(seed, claim.chat_id, "second")
    third = await queued(seed, claim.chat_id, "third")
    await queued(seed, claim.chat_id, "fourth")
    promoted = await promote_queued(seed.db, seed.actor, claim.chat_id, third)
    assert (promoted.turn["status"], promoted.message) == ("queued", None)
    assert promoted.changed.stops == [claim.turn_id]
    assert await queue(seed, claim.chat_id) == ["third", "second", "fourth"]
    await finish(seed, claim, answer("part"))
    assert await told(seed, claim.chat_id) == [
        ("user", "first"),
        ("assistant", "part"),
        ("user", "third"),
    ]
    assert await queue(seed, claim.chat_id) == ["second", "fourth"]


async def test_a_promoted_message_runs_at_once_when_nothing_runs(seed: Seed) -> None:
    claim = await seed.claimed("first")
    await queued(seed, claim.chat_id, "second")
    third = await queued(seed, claim.chat_id, "third")
    await finish(seed, claim, status="failed")
    promoted = await promote_queued(seed.db, seed.actor, claim.chat_id, third)
    assert promoted.turn["status"] == "pending"
    assert promoted.message["content"][0]["text"] == "third"
    assert promoted.version == await version_of(seed, claim.chat_id)
    assert await queue(seed, claim.chat_id) == ["second"]


async def test_a_promoted_message_keeps_the_settings_it_was_typed_with(seed: Seed) -> None:
    chat_id = await seed.chat_id("first")
    server = await make_server(seed.db)
    sent = await seed.send(chat_id, "second", mcp_server_ids=(server,), plan_mode="plan")
    await seed.send(chat_id, "third", mcp_server_ids=(), plan_mode="")
    promoted = await promote_queued(seed.db, seed.actor, chat_id, UUID(sent.turn["id"]))
    assert promoted.turn["status"] == "pending"
    assert (promoted.turn["mcp_server_ids"], promoted.turn["plan_mode"]) == ([str(server)], "plan")


async def test_two_promoted_at_once_both_run_in_the_order_of_their_locks(
    seed: Seed, database_url: str
) -> None:
    claim = await seed.claimed("first")
    a, b = await queued(seed, claim.chat_id, "a"), await queued(seed, claim.chat_id, "b")
    async with locked(database_url, claim.chat_id) as holder:
        both = asyncio.gather(
            *(promote_queued(seed.db, seed.actor, claim.chat_id, turn) for turn in (a, b))
        )
        await holder.waiting(2)
    promoted = await both
    first = max(promoted, key=lambda accepted: accepted.version)
    assert (await queue(seed, claim.chat_id))[0] == first_words(first, a)
    assert await statuses(seed, claim.chat_id) == ["interrupting", "queued", "queued"]


def first_words(promoted: Any, a: UUID) -> str:
    return "a" if promoted.turn["id"] == str(a) else "b"


async def test_one_message_promoted_twice_at_once_runs_once(seed: Seed, database_url: str) -> None:
    chat_id = await seed.chat_id("first")
    second = await queued(seed, chat_id, "second")
    async with locked(database_url, chat_id) as holder:
        both = asyncio.gather(
            *(promote_queued(seed.db, seed.actor, chat_id, second) for _ in range(2)),
            return_exceptions=True,
        )
        await holder.waiting(2)
    assert sorted(type(each).__name__ for each in await both) == ["Accepted", "NotFound"]
    assert await statuses(seed, chat_id) == ["interrupted", "pending"]


async def test_what_does_not_wait_is_not_found(seed: Seed) -> None:
    claim = await seed.claimed()
    gone = await queued(seed, claim.chat_id)
    await delete_queued(seed.db, seed.actor, claim.chat_id, gone)
    other = await seed.chat_id("other")
    elsewhere = await queued(seed, other)
    before = await everything(seed.db)
    for turn_id in (gone, claim.turn_id, elsewhere, uuid4()):
        for command in (delete_queued, promote_queued):
            with pytest.raises(NotFound, match="Queued message"):
                await command(seed.db, seed.actor, claim.chat_id, turn_id)
    assert await everything(seed.db) == before


async def test_an_archived_chat_runs_nothing_of_its_queue(seed: Seed) -> None:
    chat_id = await seed.chat_id()
    second = await queued(seed, chat_id)
    await patch_chat(seed.db, seed.actor, chat_id, ARCHIVE)
    with pytest.raises(Conflict, match="archived"):
        await promote_queued(seed.db, seed.actor, chat_id, second)
    await delete_queued(seed.db, seed.actor, chat_id, second)
    assert await statuses(seed, chat_id) == ["interrupted", "cancelled"]


async def test_other_peoples_chats_are_not_found(seed: Seed) -> None:
    claim = await seed.claimed()
    waiting = await queued(seed, claim.chat_id)
    eve = await make_user(seed.db, "eve")
    before = await everything(seed.db)
    commands: list[Callable[[], Awaitable[object]]] = [
        lambda: interrupt_chat(seed.db, eve, claim.chat_id),
        lambda: delete_queued(seed.db, eve, claim.chat_id, waiting),
        lambda: promote_queued(seed.db, eve, claim.chat_id, waiting),
    ]
    for command in commands:
        with pytest.raises(NotFound):
            await command()
    assert await everything(seed.db) == before


async def test_a_stopped_turn_sends_no_call_that_it_had_planned(seed: Seed) -> None:
    claim = await seed.claimed()
    await commit_calls(seed, claim)
    await interrupt(seed, claim.chat_id)
    assert await work.mark_sent(seed.db, claim, 1, [1, 2], 1) == frozenset()
