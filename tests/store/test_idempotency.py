"""The same request again: one turn, whenever it is repeated."""

import asyncio
from uuid import UUID

import pytest

from chatd.core.chats import MAX_QUEUED, ChatPatch, Once
from chatd.core.errors import (
    Conflict,
)
from chatd.store.editing import patch_chat
from tests.seed import Seed, answer, change_server, make_server, make_user
from tests.store.working import finish, queue
from tests.waiting import one


def once(key: str = "k", body: bytes = b"body") -> Once:
    return Once("/path", key, body.ljust(32, b"."))


async def count_turns(seed: Seed) -> int:
    return (await one(seed.db, "SELECT count(*) FROM turns"))[0]


async def test_the_same_request_twenty_times_at_once_makes_one_chat(seed: Seed) -> None:
    accepted = await asyncio.gather(*(seed.chat("hello", once()) for _ in range(20)))
    assert len({turn.turn["id"] for turn in accepted}) == 1
    assert sum(turn.version > 0 for turn in accepted) == 1
    assert await count_turns(seed) == 1


async def test_the_same_request_twenty_times_at_once_makes_one_turn(seed: Seed) -> None:
    chat_id = await seed.chat_id()
    accepted = await asyncio.gather(*(seed.send(chat_id, "more", once()) for _ in range(20)))
    assert len({turn.turn["id"] for turn in accepted}) == 1
    assert sum(turn.version > 0 for turn in accepted) == 1
    assert await count_turns(seed) == 2


async def test_a_repeated_request_is_answered_with_where_its_turn_is_now(seed: Seed) -> None:
    first = await seed.chat("hello", once())
    await finish(seed, await seed.claim(), answer("done"))
    again = await seed.chat("hello", once())
    assert again.version == 0
    assert (again.turn["id"], again.turn["status"]) == (first.turn["id"], "completed")
    assert again.message == first.message
    assert again.chat["id"] == first.turn["chat_id"]


async def test_a_key_with_another_body_is_a_conflict(seed: Seed) -> None:
    chat_id = await seed.chat_id()
    await seed.send(chat_id, "one", once())
    with pytest.raises(Conflict, match="another request body"):
        await seed.send(chat_id, "two", once(body=b"other"))
    assert await queue(seed, chat_id) == ["one"]


async def test_a_key_is_free_again_after_a_day(seed: Seed) -> None:
    first = await seed.chat("hello", once())
    chat_id = UUID(first.turn["chat_id"])
    await seed.db.fetch("UPDATE turns SET queued_at = queued_at - interval '24 hours'")
    second = await seed.chat("hello", once())
    assert second.turn["id"] != first.turn["id"]
    await seed.db.fetch("UPDATE turns SET queued_at = queued_at - interval '24 hours'")
    third = await seed.send(chat_id, "other", once(body=b"other"))
    assert third.version
    assert await count_turns(seed) == 3


async def test_keys_of_other_people_and_paths_do_not_meet(seed: Seed) -> None:
    first = await seed.chat("hello", once())
    elsewhere = await seed.chat("hello", Once("/other", "k", b"x" * 32))
    other = Seed(seed.db, await make_user(seed.db, "eve"), seed.model_id)
    theirs = await other.chat("hello", once(body=b"other"))
    assert len({turn.turn["id"] for turn in (first, elsewhere, theirs)}) == 3


async def test_a_repeated_request_is_answered_although_it_would_be_refused_now(
    seed: Seed,
) -> None:
    server = await make_server(seed.db)
    created = await seed.chat("a", once("a"), mcp_server_ids=(server,))
    chat_id = UUID(created.turn["chat_id"])
    sent = await seed.send(chat_id, "b", once("b"), mcp_server_ids=(server,))
    await seed.send(chat_id, mcp_server_ids=())
    await change_server(seed.db, server, enabled=False)
    for number in range(MAX_QUEUED - 2):
        await seed.send(chat_id, f"{number}")
    await patch_chat(seed.db, seed.actor, chat_id, ChatPatch(archived=True))
    again = await seed.chat("a", once("a"), mcp_server_ids=(server,))
    assert again.turn["id"] == created.turn["id"]
    again = await seed.send(chat_id, "b", once("b"), mcp_server_ids=(server,))
    assert again.turn["id"] == sent.turn["id"]
