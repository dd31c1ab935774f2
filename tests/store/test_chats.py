"""Reading chats, messages and turns."""

from dataclasses import replace
from uuid import UUID

import pytest

from chatd.core.chats import ChatPatch
from chatd.core.errors import NotFound
from chatd.core.messages import Usage
from chatd.core.turns import TurnStatus
from chatd.store.chats import get_chat, get_turn, list_chats, list_messages, list_turns
from chatd.store.editing import patch_chat
from tests.seed import Seed, answer, make_user
from tests.store.working import finish
from tests.waiting import one


async def titles(seed: Seed, **wanted: object) -> list[str]:
    options: dict[str, object] = {"limit": 50, **wanted}
    chats = await list_chats(seed.db, seed.actor.user_id, **options)  # pyright: ignore[reportArgumentType]
    return [chat["title"] for chat in chats]


async def test_the_chat_that_changed_last_comes_first(seed: Seed) -> None:
    chat_ids = [await seed.chat_id(title) for title in "abc"]
    assert await titles(seed) == ["c", "b", "a"]
    await seed.send(chat_ids[0])
    assert await titles(seed) == ["a", "c", "b"]


async def test_chats_are_paged_by_offset_and_by_the_last_one_seen(seed: Seed) -> None:
    chat_ids = {title: await seed.chat_id(title) for title in "abcde"}
    assert await titles(seed, limit=2) == ["e", "d"]
    assert await titles(seed, limit=2, offset=2) == ["c", "b"]
    assert await titles(seed, limit=2, after_id=chat_ids["d"]) == ["c", "b"]
    assert await titles(seed, limit=2, after_id=chat_ids["a"]) == []


async def test_chats_are_found_by_label_title_and_archive(seed: Seed) -> None:
    plain, percent = await seed.chat_id("ten of them"), await seed.chat_id("100% Sure_thing \\o/")
    await patch_chat(seed.db, seed.actor, plain, ChatPatch(labels={"a": "1", "b": "2"}))
    await patch_chat(seed.db, seed.actor, percent, ChatPatch(archived=True))
    assert await titles(seed, labels={"a": "1"}) == ["ten of them"]
    assert await titles(seed, labels={"a": "2"}) == []
    assert await titles(seed, archived=True) == ["100% Sure_thing \\o/"]
    assert await titles(seed, search="SURE_") == ["100% Sure_thing \\o/"]
    for sign in ("%", "_", "\\"):
        assert await titles(seed, search=sign) == ["100% Sure_thing \\o/"]


async def test_only_the_owner_finds_a_chat(seed: Seed) -> None:
    accepted = await seed.chat()
    chat_id, turn_id = UUID(accepted.turn["chat_id"]), UUID(accepted.turn["id"])
    eve = (await make_user(seed.db, "eve")).user_id
    other_chat = await seed.chat_id()
    assert await list_chats(seed.db, eve, limit=9) == []
    for read in (
        get_chat(seed.db, eve, chat_id),
        list_messages(seed.db, eve, chat_id),
        list_turns(seed.db, eve, chat_id),
        get_turn(seed.db, eve, chat_id, turn_id),
        get_turn(seed.db, seed.actor.user_id, other_chat, turn_id),
    ):
        with pytest.raises(NotFound):
            await read


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ("pending", "pending"),
        ("running", "running"),
        ("interrupting", "interrupting"),
        ("requires_action", "requires_action"),
        ("completed", "waiting"),
        ("interrupted", "waiting"),
        ("cancelled", "waiting"),
        ("superseded", "waiting"),
        ("failed", "error"),
    ],
)
async def test_a_chats_status_is_that_of_its_active_or_last_turn(
    seed: Seed, status: str, shown: str
) -> None:
    chat_id = await seed.chat_id()
    ended = status in {"completed", "interrupted", "cancelled", "superseded", "failed"}
    leased = status in {"running", "interrupting"}
    await seed.db.fetch(
        "UPDATE turns SET status = $1, finished_at = CASE WHEN $2 THEN clock_timestamp() END,"
        " lease_id = CASE WHEN $3 THEN gen_random_uuid() END",
        TurnStatus(status),
        ended,
        leased,
    )
    await seed.db.fetch(
        """INSERT INTO open_items (id, chat_id, turn_id, owner_id, step, position, tool_call_id,
            kind, state)
        SELECT gen_random_uuid(), chat_id, id, owner_id, 1, 1, 'c', 'approval', 'open' FROM turns
        WHERE status = 'requires_action'"""
    )
    assert (await get_chat(seed.db, seed.actor.user_id, chat_id))["status"] == shown


async def test_a_chat_shows_its_last_error_until_it_goes_on(seed: Seed) -> None:
    claim = await seed.claimed()
    await finish(seed, claim, status="failed")
    owner = seed.actor.user_id
    assert (await get_chat(seed.db, owner, claim.chat_id))["last_error"]["kind"] == "generic"
    await seed.send(claim.chat_id)
    assert (await get_chat(seed.db, owner, claim.chat_id))["last_error"] is None
    await finish(seed, await seed.claim())
    assert (await get_chat(seed.db, owner, claim.chat_id))["last_error"] is None


async def test_an_answer_nobody_read_is_unread(seed: Seed) -> None:
    claim = await seed.claimed()
    owner = seed.actor.user_id
    assert (await get_chat(seed.db, owner, claim.chat_id))["has_unread"] is False
    await finish(seed, claim, answer("done"))
    assert (await get_chat(seed.db, owner, claim.chat_id))["has_unread"] is True
    newest = (await one(seed.db, "SELECT max(id) FROM chat_messages"))[0]
    await seed.db.fetch("UPDATE chats SET last_read_message_id = $1", newest)
    assert (await get_chat(seed.db, owner, claim.chat_id))["has_unread"] is False


async def test_messages_are_paged_from_both_ends(seed: Seed) -> None:
    claim = await seed.claimed("0")
    await finish(seed, claim, *(answer(f"{step}", step) for step in range(1, 6)))
    await seed.send(claim.chat_id, "6")
    await seed.send(claim.chat_id, "7")
    owner = seed.actor.user_id

    async def page(**cursor: int) -> tuple[str, bool, int]:
        found = await list_messages(seed.db, owner, claim.chat_id, **cursor)
        texts = "".join(message["content"][0]["text"] for message in found["messages"])
        return texts, found["has_more"], len(found["queued_messages"])

    newest = (await list_messages(seed.db, owner, claim.chat_id, limit=3))["messages"]
    assert await page(limit=3) == ("654", True, 1)
    assert await page(limit=3, before_id=newest[-1]["id"]) == ("321", True, 0)
    assert await page(limit=7) == ("6543210", False, 1)
    assert await page(limit=2, after_id=newest[-1]["id"] - 2) == ("34", True, 0)
    assert await page(after_id=newest[-1]["id"], before_id=newest[0]["id"]) == ("5", False, 0)


async def test_a_turns_usage_is_that_of_its_messages(seed: Seed) -> None:
    claim = await seed.claimed()
    usage = Usage(
        input_tokens=10,
        output_tokens=5,
        total_tokens=15,
        reasoning_tokens=1,
        cache_creation_tokens=2,
        cache_read_tokens=3,
    )
    billed = [replace(answer("x", step), usage=usage, cost_micros=7) for step in (1, 2)]
    messages = [*billed, answer("free", 3)]
    await finish(seed, claim, *messages)
    turn = await get_turn(seed.db, seed.actor.user_id, claim.chat_id, claim.turn_id)
    assert turn["usage"] == {
        "input_tokens": 20,
        "output_tokens": 10,
        "total_tokens": 30,
        "reasoning_tokens": 2,
        "cache_creation_tokens": 4,
        "cache_read_tokens": 6,
        "total_cost_micros": 14,
    }
    turns = await list_turns(seed.db, seed.actor.user_id, claim.chat_id)
    assert turns == [turn]
