"""Edit, regenerate, clear, compact: what people and the model then have of the history."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from chatd.core.chats import ChatPatch, NewTurn, Once
from chatd.core.errors import BadRequest, Conflict, LeaseLost, NotFound, TooMany
from chatd.core.work import Claim
from chatd.store import hot
from chatd.store.chats import get_chat, list_messages
from chatd.store.db import load
from chatd.store.editing import patch_chat
from chatd.store.following import read_state
from chatd.store.history import Rewrite, clear_chat, rewrite
from chatd.store.idempotency import Accepted
from chatd.store.ids import new_id
from chatd.store.submitting import submit_turn
from tests.seed import Seed, answer, change_server, make_model, make_server, make_user, said
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
from tests.waiting import locked, one

ONCE = Once("/chats/x/messages/1", "key", b"x" * 32)


async def ids(seed: Seed, chat_id: UUID) -> list[int]:
    """The messages a client has, oldest first."""
    found = await list_messages(seed.db, seed.actor.user_id, chat_id, limit=200)
    return [message["id"] for message in reversed(found["messages"])]


async def edit(
    seed: Seed,
    chat_id: UUID,
    message_id: int | None,
    words: str = "",
    once: Once | None = None,
    **settings: Any,
) -> Accepted:
    new = NewTurn(said(words) if words else [], **settings)
    asked = Rewrite(seed.actor, chat_id, message_id, new, once, new_id(), None)
    return await rewrite(seed.db, asked)


async def again(seed: Seed, chat_id: UUID, once: Once | None = None, **settings: Any) -> Accepted:
    """Regenerates."""
    return await edit(seed, chat_id, None, "", once, **settings)


async def answered(seed: Seed, *words: str) -> UUID:
    """A chat in which each of these was said and answered."""
    claim = await seed.claimed(words[0])
    await finish(seed, claim, answer(f"re {words[0]}"))
    for word in words[1:]:
        await seed.send(claim.chat_id, word)
        await finish(seed, await seed.claim(), answer(f"re {word}"))
    return claim.chat_id


async def for_the_model(seed: Seed, claim: Claim) -> list[str]:
    """What the turn's model reads."""
    row = await one(seed.db, hot.LOAD, claim.turn_id, claim.lease_id)
    return [part["text"] for message in load(row["history"]) for part in message["content"]]


# --- editing


async def test_an_edit_takes_out_the_message_and_all_that_followed(seed: Seed) -> None:
    chat_id = await answered(seed, "one", "two", "three")
    before = await ids(seed, chat_id)
    edited = await edit(seed, chat_id, before[2], "two, or rather")
    assert edited.deleted == tuple(before[2:])
    assert edited.turn["status"] == "pending"
    assert edited.message["content"] == said("two, or rather")
    assert await ids(seed, chat_id) == [*before[:2], edited.message["id"]]
    state = await read_state(seed.db, chat_id, None)
    assert state is not None
    assert state.history_version == state.version == edited.version
    rows = await seed.db.fetch(
        "SELECT DISTINCT version FROM chat_messages WHERE chat_id = $1 AND deleted", chat_id
    )
    assert [row["version"] for row in rows] == [edited.version]
    claim = await seed.claim()
    assert await for_the_model(seed, claim) == ["one", "re one", "two, or rather"]


async def test_an_edit_while_it_runs_supersedes_the_turn_and_its_worker_writes_no_more(
    seed: Seed,
) -> None:
    claim = await seed.claimed("one")
    await commit_calls(seed, claim)
    await seed.send(claim.chat_id, "queued")
    child = await child_of(seed, claim.chat_id)
    (first, *_) = await ids(seed, claim.chat_id)
    edited = await edit(seed, claim.chat_id, first, "other")
    assert edited.changed.stops == [claim.turn_id]
    assert set(edited.changed.versions) == {claim.chat_id, child}
    assert await statuses(seed, claim.chat_id) == ["superseded", "cancelled", "pending"]
    assert await statuses(seed, child) == ["interrupted"]
    assert await journal(seed, claim) == [(1, "cancelled"), (2, "cancelled")]
    assert await told(seed, claim.chat_id) == [("user", "other")]
    assert await queue(seed, claim.chat_id) == []
    with pytest.raises(LeaseLost):
        await finish(seed, claim, answer("late"))
    assert await told(seed, claim.chat_id) == [("user", "other")]


async def test_an_edit_ends_what_waits_for_somebody(seed: Seed) -> None:
    claim = await seed.claimed("one")
    await park(seed, claim)
    edited = await edit(seed, claim.chat_id, (await ids(seed, claim.chat_id))[0], "other")
    assert edited.changed.stops == []
    assert await item_states(seed, claim.chat_id) == ["cancelled"]
    assert await statuses(seed, claim.chat_id) == ["superseded", "pending"]
    assert await told(seed, claim.chat_id) == [("user", "other")]


async def test_a_commit_that_came_first_is_taken_out_too(seed: Seed, database_url: str) -> None:
    claim = await seed.claimed("one")
    (first,) = await ids(seed, claim.chat_id)
    async with locked(database_url, claim.chat_id) as holder:
        committing = asyncio.create_task(commit_calls(seed, claim))
        await holder.waiting(1)
        editing = asyncio.create_task(edit(seed, claim.chat_id, first, "other"))
        await holder.waiting(2)
    committed = await committing
    edited = await editing
    assert committed.messages[0][0] in edited.deleted
    assert await told(seed, claim.chat_id) == [("user", "other")]


async def test_an_edit_changes_settings_only_where_it_says_so(seed: Seed) -> None:
    server, model = await make_server(seed.db), await make_model(seed.db)
    first = await seed.chat("one", mcp_server_ids=(server,), reasoning_effort="low")
    chat_id = UUID(first.turn["chat_id"])
    kept = await edit(seed, chat_id, first.message["id"], "two")
    assert (kept.turn["mcp_server_ids"], kept.turn["reasoning_effort"]) == ([str(server)], "low")
    other = await edit(
        seed,
        chat_id,
        kept.message["id"],
        "three",
        model_config_id=model,
        mcp_server_ids=(),
        plan_mode="plan",
    )
    assert other.turn["model_config_id"] == str(model)
    assert (other.turn["mcp_server_ids"], other.turn["plan_mode"]) == ([], "plan")


async def test_an_edit_that_will_not_do_changes_nothing(seed: Seed) -> None:
    chat_id = await answered(seed, "one")
    elsewhere = await answered(seed, "other")
    said_by_user, said_by_model = await ids(seed, chat_id)
    (foreign, _) = await ids(seed, elsewhere)
    eve = await make_user(seed.db, "eve")
    before = await everything(seed.db)
    for message_id in (foreign, said_by_model + 1000):
        with pytest.raises(NotFound, match="Chat message not found"):
            await edit(seed, chat_id, message_id, "x")
    with pytest.raises(BadRequest, match="Only user messages"):
        await edit(seed, chat_id, said_by_model, "x")
    wrong: list[dict[str, Any]] = [
        {"model_config_id": uuid4()},
        {"mcp_server_ids": (uuid4(),)},
    ]
    for settings in wrong:
        with pytest.raises(BadRequest):
            await edit(seed, chat_id, said_by_user, "x", **settings)
    with pytest.raises(NotFound):
        await edit(Seed(seed.db, eve, seed.model_id), chat_id, said_by_user, "x")
    assert await everything(seed.db) == before


async def test_an_archived_chat_keeps_its_history(seed: Seed) -> None:
    chat_id = await answered(seed, "one")
    (first, _) = await ids(seed, chat_id)
    await patch_chat(seed.db, seed.actor, chat_id, ChatPatch(archived=True))
    before = await everything(seed.db)
    for message_id in (first, None):
        with pytest.raises(Conflict, match="archived"):
            await edit(seed, chat_id, message_id, "x")
    with pytest.raises(Conflict, match="archived"):
        await clear_chat(seed.db, seed.actor, chat_id)
    assert await everything(seed.db) == before


async def test_an_edit_is_done_once_under_one_key(seed: Seed) -> None:
    chat_id = await answered(seed, "one", "two")
    before = await ids(seed, chat_id)
    edited = await edit(seed, chat_id, before[0], "other", ONCE)
    repeated = await edit(seed, chat_id, before[0], "other", ONCE)
    assert (repeated.turn, repeated.message) == (edited.turn, edited.message)
    assert (repeated.deleted, repeated.version) == (edited.deleted, 0)
    assert await statuses(seed, chat_id) == ["completed", "completed", "pending"]
    with pytest.raises(NotFound):
        await edit(seed, chat_id, before[0], "other")


async def test_two_edits_at_once_leave_one_history(seed: Seed, database_url: str) -> None:
    claim = await seed.claimed("one")
    (first,) = await ids(seed, claim.chat_id)
    async with locked(database_url, claim.chat_id) as holder:
        both = asyncio.gather(
            *(edit(seed, claim.chat_id, first, words) for words in ("a", "b")),
            return_exceptions=True,
        )
        await holder.waiting(2)
    results = await both
    assert sorted(type(each).__name__ for each in results) == ["Accepted", "NotFound"]
    assert await statuses(seed, claim.chat_id) == ["superseded", "pending"]


# --- regenerating


@pytest.mark.parametrize("status", ["completed", "failed", "interrupted"])
async def test_the_last_message_is_answered_again(seed: Seed, status: str) -> None:
    chat_id = await answered(seed, "one")
    server = await make_server(seed.db)
    await seed.send(chat_id, "two", mcp_server_ids=(server,), plan_mode="plan")
    claim = await seed.claim()
    await finish(seed, claim, answer("no good"), status=status)
    await patch_chat(seed.db, seed.actor, chat_id, ChatPatch(plan_mode=""))
    before = await ids(seed, chat_id)
    made = await again(seed, chat_id)
    assert (made.turn["status"], made.turn["plan_mode"]) == ("pending", "plan")
    assert made.turn["mcp_server_ids"] == [str(server)]
    assert made.deleted == tuple(before[2:])
    assert [text for _, text in await told(seed, chat_id)] == ["one", "re one", "two"]
    assert (await get_chat(seed.db, seed.actor.user_id, chat_id))["status"] == "pending"


async def test_what_runs_is_begun_anew(seed: Seed) -> None:
    claim = await seed.claimed("one")
    made = await again(seed, claim.chat_id)
    assert made.changed.stops == [claim.turn_id]
    assert await statuses(seed, claim.chat_id) == ["superseded", "pending"]


async def test_settings_that_are_gone_are_replaced_and_others_may_be_chosen(seed: Seed) -> None:
    model, server = await make_model(seed.db), await make_server(seed.db)
    first = await seed.chat("one", model_config_id=model, mcp_server_ids=(server,))
    chat_id = UUID(first.turn["chat_id"])
    await seed.db.fetch("UPDATE model_configs SET enabled = false WHERE id = $1", model)
    await patch_chat(seed.db, seed.actor, chat_id, ChatPatch(mcp_server_ids=()))
    await change_server(seed.db, server, enabled=False)
    made = await again(seed, chat_id)
    assert made.turn["model_config_id"] == str(seed.model_id)
    assert made.turn["mcp_server_ids"] == []
    other = await make_model(seed.db)
    chosen = await again(seed, chat_id, model_config_id=other, plan_mode="plan")
    assert (chosen.turn["model_config_id"], chosen.turn["plan_mode"]) == (str(other), "plan")
    assert (await again(seed, chat_id, plan_mode="")).turn["plan_mode"] is None


async def test_a_cleared_chat_has_nothing_to_regenerate(seed: Seed) -> None:
    chat_id = await answered(seed, "one")
    await clear_chat(seed.db, seed.actor, chat_id)
    before = await everything(seed.db)
    with pytest.raises(Conflict, match="nothing to regenerate"):
        await again(seed, chat_id)
    assert await everything(seed.db) == before
    await seed.send(chat_id, "two")
    assert (await again(seed, chat_id)).message["content"] == said("two")


async def test_regenerating_is_done_once_under_one_key(seed: Seed) -> None:
    chat_id = await answered(seed, "one")
    made = await again(seed, chat_id, ONCE)
    assert (await again(seed, chat_id, ONCE)).turn["id"] == made.turn["id"]
    assert await statuses(seed, chat_id) == ["completed", "pending"]


# --- clearing and compacting


async def test_after_a_clear_the_model_reads_only_what_is_new(seed: Seed) -> None:
    chat_id = await answered(seed, "one")
    before = await ids(seed, chat_id)
    changed = await clear_chat(seed.db, seed.actor, chat_id)
    state = await read_state(seed.db, chat_id, None)
    assert state is not None
    assert state.history_version == changed.versions[chat_id] == await version_of(seed, chat_id)
    assert await ids(seed, chat_id) == before
    await seed.send(chat_id, "two")
    claim = await seed.claim()
    assert await for_the_model(seed, claim) == ["two"]
    await finish(seed, claim, answer("re two"))
    await clear_chat(seed.db, seed.actor, chat_id)
    await clear_chat(seed.db, seed.actor, chat_id)
    await seed.send(chat_id, "three")
    assert await for_the_model(seed, await seed.claim()) == ["three"]


async def test_an_edit_before_a_clear_undoes_it_and_one_after_it_does_not(seed: Seed) -> None:
    chat_id = await answered(seed, "one", "two")
    await clear_chat(seed.db, seed.actor, chat_id)
    third = await seed.send(chat_id, "three")
    await edit(seed, chat_id, third.message["id"], "four")
    claim = await seed.claim()
    assert await for_the_model(seed, claim) == ["four"]
    await edit(seed, chat_id, (await ids(seed, chat_id))[2], "five")
    claim = await seed.claim()
    assert await for_the_model(seed, claim) == ["one", "re one", "five"]


async def test_a_busy_chat_is_not_cleared(seed: Seed) -> None:
    claim = await seed.claimed()
    eve = await make_user(seed.db, "eve")
    for status in ("completed", "failed"):
        await seed.send(claim.chat_id)
        with pytest.raises(Conflict, match="busy"):
            await clear_chat(seed.db, seed.actor, claim.chat_id)
        await finish(seed, claim, status=status)
        with pytest.raises(Conflict, match="busy"):
            await clear_chat(seed.db, seed.actor, claim.chat_id)
        claim = await seed.claim() if status == "completed" else claim
    with pytest.raises(NotFound):
        await clear_chat(seed.db, eve, claim.chat_id)


async def compact(seed: Seed, chat_id: UUID) -> Accepted:
    new = NewTurn([], kind="compact")
    return await submit_turn(seed.db, seed.actor, chat_id, new, None, turn_id=new_id())


async def test_a_compaction_is_a_turn_without_a_message(seed: Seed) -> None:
    chat_id = await answered(seed, "one")
    made = await compact(seed, chat_id)
    assert (made.turn["kind"], made.turn["status"], made.message) == ("compact", "pending", None)
    assert await told(seed, chat_id) == [("user", "one"), ("assistant", "re one")]
    state = await read_state(seed.db, chat_id, None)
    assert state is not None
    assert [turn.view["kind"] for turn in state.turns] == ["message", "compact"]


async def test_a_compaction_queues_like_a_message(seed: Seed) -> None:
    claim = await seed.claimed("one")
    made = await compact(seed, claim.chat_id)
    assert made.turn["status"] == "queued"
    await seed.send(claim.chat_id, "two")
    await finish(seed, claim, answer("re one"))
    assert await statuses(seed, claim.chat_id) == ["completed", "pending", "queued"]
    assert await told(seed, claim.chat_id) == [("user", "one"), ("assistant", "re one")]
    running = await seed.claim()
    assert str(running.turn_id) == made.turn["id"]
    await finish(seed, running)
    assert (await told(seed, claim.chat_id))[-1] == ("user", "two")
    for _ in range(20):
        await compact(seed, claim.chat_id)
    with pytest.raises(TooMany):
        await compact(seed, claim.chat_id)
