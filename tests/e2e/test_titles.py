"""A worker process names new chats, and makes titles also while all its slots are taken."""

from typing import Any

import httpx2

from chatd.store.db import Database
from tests.e2e.client import Client
from tests.e2e.fleet import Fleet
from tests.waiting import until


async def test_new_chats_are_named_beside_their_turns(
    crew: Fleet, member: Client, model: httpx2.AsyncClient, db: Database
) -> None:
    await crew.worker(capacity=1, CHATD_AUTO_TITLES="true")
    first = await member.create("/say the weather is fine")

    async def named() -> Any:
        chat = await member.get(f"/chats/{first.chat_id}")
        return chat if chat["title"] == "The weather is fine" else None

    await until(named)
    assert (await member.ended(first))["status"] == "completed"
    # The title was no step of the script, and none of the calls that are counted.
    assert (await member.messages(first))[-1]["content"][0]["text"] == "the weather is fine"
    assert len((await model.get("/requests")).json()) == 1
    usage = await member.get(f"/chats/{first.chat_id}/usage")
    assert [row["kind"] for row in usage["by_kind"]] == ["step", "title"]

    busy = await member.create("/hang 600")
    await until(lambda: running(member, busy.turn_id, busy.chat_id))
    answer = await member.http.post(f"/chats/{first.chat_id}/title/propose", json={})
    assert (answer.status_code, answer.json()) == (200, {"title": "The weather is fine"})
    await member.delete(f"/chats/{busy.chat_id}")


async def running(member: Client, turn_id: str, chat_id: str) -> bool:
    turn = await member.get(f"/chats/{chat_id}/turns/{turn_id}")
    return turn["status"] == "running"


async def test_a_followed_chat_sees_its_name_and_loses_nothing(crew: Fleet, member: Client) -> None:
    await crew.worker(CHATD_AUTO_TITLES="true")
    first = await member.create("/long 60 10")
    async with member.watching(first.chat_id) as watch:
        assert await watch.over(first.turn_id) == await member.screen(first.chat_id)
