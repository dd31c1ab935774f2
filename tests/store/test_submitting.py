"""Accepting turns: what becomes of a message, and what is refused without a trace."""

import asyncio
from collections import Counter
from uuid import UUID, uuid4

import pytest

from chatd.core.chats import MAX_QUEUED, ChatPatch, NewTurn
from chatd.core.errors import (
    BadRequest,
    Conflict,
    NotFound,
    TooMany,
)
from chatd.store import models
from chatd.store.chats import get_chat, list_messages, list_turns
from chatd.store.editing import delete_chat, patch_chat
from chatd.store.ids import new_id
from chatd.store.loading import TurnLoader
from chatd.store.queueing import promote_queued
from chatd.store.submitting import submit_turn
from tests.seed import KEYS, Seed, answer, make_model, make_user, said
from tests.store.working import everything, finish, queue, statuses, told
from tests.waiting import locked


async def texts(seed: Seed, chat_id: UUID) -> list[str]:
    """What is history, oldest first."""
    return [text for _, text in await told(seed, chat_id)]


async def test_a_message_to_an_idle_chat_is_runnable_and_history_at_once(seed: Seed) -> None:
    chat_id = await seed.chat_id("first")
    await finish(seed, await seed.claim(), answer("done"))
    accepted = await seed.send(chat_id, "second")
    assert accepted.turn["status"] == "pending"
    assert accepted.message["id"] == accepted.turn["user_message_id"]
    assert accepted.message["content"] == said("second")
    assert await texts(seed, chat_id) == ["first", "done", "second"]
    assert accepted.version == 4  # created, claimed, finished, submitted


async def test_what_is_answered_is_what_is_read_later(seed: Seed) -> None:
    created = await seed.chat("first")
    chat_id, owner = UUID(created.turn["chat_id"]), seed.actor.user_id
    assert created.chat == await get_chat(seed.db, owner, chat_id)
    found = await list_messages(seed.db, owner, chat_id)
    assert found["messages"] == [created.message]
    await seed.send(chat_id, "second")
    turns = await list_turns(seed.db, owner, chat_id)
    assert turns[1] == created.turn


async def test_a_message_to_a_busy_chat_waits(seed: Seed) -> None:
    chat_id = await seed.chat_id("first")
    accepted = await seed.send(chat_id, "second")
    assert accepted.turn["status"] == "queued"
    assert (accepted.message, accepted.turn["user_message_id"]) == (None, None)
    assert await texts(seed, chat_id) == ["first"]
    assert await queue(seed, chat_id) == ["second"]


async def test_the_21st_waiting_message_is_refused_and_nothing_written(seed: Seed) -> None:
    chat_id = await seed.chat_id()
    for number in range(MAX_QUEUED):
        await seed.send(chat_id, f"{number}")
    before = await everything(seed.db)
    with pytest.raises(TooMany) as refused:
        await seed.send(chat_id, "one too many")
    assert refused.value.headers == {"Retry-After": "5"}
    assert await everything(seed.db) == before


async def test_a_failed_turn_keeps_its_queue_until_a_message_moves_it(seed: Seed) -> None:
    chat_id = await seed.chat_id("first")
    await seed.send(chat_id, "second")
    await finish(seed, await seed.claim(), status="failed")
    assert await statuses(seed, chat_id) == ["failed", "queued"]
    accepted = await seed.send(chat_id, "third")
    assert accepted.turn["status"] == "queued"
    assert accepted.message is None
    assert await statuses(seed, chat_id) == ["failed", "pending", "queued"]
    assert await texts(seed, chat_id) == ["first", "second"]
    assert await queue(seed, chat_id) == ["third"]


async def test_a_full_queue_behind_a_failed_turn_can_still_be_moved(seed: Seed) -> None:
    chat_id = await seed.chat_id("first")
    for number in range(MAX_QUEUED):
        await seed.send(chat_id, f"{number}")
    await finish(seed, await seed.claim(), status="failed")
    assert (await seed.send(chat_id, "go on")).turn["status"] == "queued"
    assert Counter(await statuses(seed, chat_id)) == {
        "failed": 1,
        "pending": 1,
        "queued": MAX_QUEUED,
    }
    with pytest.raises(TooMany):
        await seed.send(chat_id, "one too many")


async def test_messages_sent_at_once_all_wait_in_one_order(seed: Seed) -> None:
    chat_id = await seed.chat_id("first")
    accepted = await asyncio.gather(*(seed.send(chat_id, f"{n}") for n in range(MAX_QUEUED)))
    assert {turn.turn["status"] for turn in accepted} == {"queued"}
    by_version = sorted(accepted, key=lambda turn: turn.version)
    assert [turn.version for turn in by_version] == list(range(2, MAX_QUEUED + 2))
    rows = await seed.db.fetch("SELECT id FROM turns WHERE status = 'queued' ORDER BY position")
    assert [turn.turn["id"] for turn in by_version] == [str(row["id"]) for row in rows]


async def test_a_message_that_waited_for_the_lock_sees_what_was_queued_meanwhile(
    seed: Seed, database_url: str
) -> None:
    chat_id = await seed.chat_id("first")
    await finish(seed, await seed.claim(), answer("done"))
    async with locked(database_url, chat_id) as holder:
        both = asyncio.gather(seed.send(chat_id, "a"), seed.send(chat_id, "b"))
        await holder.waiting(2)
    assert sorted(turn.turn["status"] for turn in await both) == ["pending", "queued"]


async def test_an_archived_chat_takes_no_messages(seed: Seed) -> None:
    chat_id = await seed.chat_id()
    await patch_chat(seed.db, seed.actor, chat_id, ChatPatch(archived=True))
    before = await everything(seed.db)
    with pytest.raises(Conflict, match="archived"):
        await seed.send(chat_id)
    assert await everything(seed.db) == before


async def test_other_peoples_and_deleted_chats_are_not_found(seed: Seed) -> None:
    chat_id = await seed.chat_id()
    other = await make_user(seed.db, "eve")
    for actor, chat in ((other, chat_id), (seed.actor, uuid4())):
        with pytest.raises(NotFound):
            await submit_turn(seed.db, actor, chat, NewTurn(said("x")), None, turn_id=new_id())
    await delete_chat(seed.db, seed.actor, chat_id)
    with pytest.raises(NotFound):
        await seed.send(chat_id)


async def test_an_unknown_model_is_refused_and_nothing_written(seed: Seed) -> None:
    switched_off = await make_model(seed.db, enabled=False)
    chat_id = await seed.chat_id()
    before = await everything(seed.db)
    for model_id in (uuid4(), switched_off):
        with pytest.raises(BadRequest, match="Invalid model"):
            await seed.send(chat_id, model_config_id=model_id)
        with pytest.raises(BadRequest, match="Invalid model"):
            await seed.chat(model_config_id=model_id)
    assert await everything(seed.db) == before


async def test_without_any_model_the_user_is_told_whom_to_ask(seed: Seed) -> None:
    async with seed.db.transaction() as session:
        await models.delete_config(session, seed.model_id)
    with pytest.raises(BadRequest, match="No default model") as refused:
        await seed.chat()
    assert "administrator" in refused.value.detail


async def test_the_chats_own_model_stays_until_it_is_gone(seed: Seed) -> None:
    other = await make_model(seed.db)
    chat = await seed.chat(model_config_id=other)
    chat_id = UUID(chat.turn["chat_id"])
    assert (await seed.send(chat_id)).turn["model_config_id"] == str(other)
    async with seed.db.transaction() as session:
        await models.delete_config(session, other)
    assert (await seed.send(chat_id)).turn["model_config_id"] == str(seed.model_id)
    read = await get_chat(seed.db, seed.actor.user_id, chat_id)
    assert read["last_model_config_id"] == str(seed.model_id)


async def test_a_turn_waits_for_its_owner_to_connect_if_it_was_sent_so(seed: Seed) -> None:
    chat = await seed.chat("waits", on_auth_required="wait")
    chat_id = UUID(chat.turn["chat_id"])
    claim = await seed.claim()
    await seed.send(chat_id, "goes on")
    last = await seed.send(chat_id, "waits too", on_auth_required="wait")
    await promote_queued(seed.db, seed.actor, chat_id, UUID(last.turn["id"]))
    waits: list[str] = []
    for _ in range(3):
        waits.append((await TurnLoader(seed.db, KEYS).load(claim)).on_auth_required)
        await finish(seed, claim)
        claim = await seed.claim() if len(waits) < 3 else claim
    assert waits == ["wait", "wait", "skip"]
