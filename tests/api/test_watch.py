"""Watching all chats of a user: what reaches them, of which chats, and in which shape."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

import httpx2
import orjson
import pytest
from fastapi import FastAPI

from chatd.core.chats import ChatPatch
from chatd.settings import Settings
from chatd.store import work
from chatd.store.db import Database
from chatd.store.editing import patch_chat
from chatd.store.watching import WatchReads
from tests.api.conftest import BASE, Person, text
from tests.api.served import closing_code, heard, open_socket, serving
from tests.seed import Seed, answer
from tests.store.working import finish, park


@pytest.fixture
async def address(app: FastAPI, settings: Settings) -> AsyncGenerator[str]:
    async with serving(app, settings) as address:
        yield address


async def new_chat(person: Person) -> str:
    answer = await person.post("/chats", {"content": text("hello")})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def test_a_chats_life_as_its_owner_watches_it(
    model: str, address: str, admin: Person
) -> None:
    async with open_socket(address, "/chats/watch", admin) as socket:
        chat = await new_chat(admin)
        created = await heard(socket, "created")
        assert created["id"] is None
        assert created["data"]["kind"] == "created"
        assert created["data"]["chat"] == (await admin.get(f"/chats/{chat}")).json()
        await admin.patch(f"/chats/{chat}", {"title": "Fish"})
        assert (await heard(socket, "title_change"))["data"]["chat"]["title"] == "Fish"
        await admin.patch(f"/chats/{chat}", {"archived": True})
        assert (await heard(socket, "deleted"))["data"]["chat"]["archived"]
        await admin.patch(f"/chats/{chat}", {"archived": False})
        assert not (await heard(socket, "created"))["data"]["chat"]["archived"]
        await admin.delete(f"/chats/{chat}")
        assert (await heard(socket, "deleted"))["data"]["chat"]["id"] == chat


async def test_nobody_hears_of_anothers_chats(
    model: str, address: str, admin: Person, member: Person
) -> None:
    async with open_socket(address, "/chats/watch", member) as socket:
        await new_chat(admin)
        mine = await new_chat(member)
        assert (await heard(socket, "created"))["data"]["chat"]["id"] == mine


async def test_what_a_worker_does_without_a_word_is_told_seconds_later(
    model: str, address: str, admin: Person, db: Database
) -> None:
    chat = await new_chat(admin)
    async with open_socket(address, "/chats/watch", admin) as socket:
        assert len(await work.claim_turns(db, "w", 1)) == 1
        event = await heard(socket, "status_change")
    assert (event["data"]["chat"]["id"], event["data"]["chat"]["status"]) == (chat, "running")


async def test_a_turn_that_waits_for_its_user_is_told_with_what_it_asks(
    model: str, app: FastAPI, address: str, admin: Person, db: Database
) -> None:
    chat = await new_chat(admin)
    (claim,) = await work.claim_turns(db, "w", 1)
    async with open_socket(address, "/chats/watch", admin) as socket:
        await db.fetch(
            """UPDATE turns SET status = 'requires_action', lease_id = NULL,
                lease_expires_at = NULL WHERE id = $1""",
            claim.turn_id,
        )
        await db.fetch(
            """INSERT INTO open_items (id, chat_id, turn_id, owner_id, step, position,
                tool_call_id, kind, data)
            VALUES (gen_random_uuid(), $1, $2, $3, 1, 1, 'c', 'tool_result',
                '{"tool_name": "browser", "args": "{}"}')""",
            UUID(chat),
            claim.turn_id,
            claim.owner_id,
        )
        app.state.parts.commands._publisher.announce(UUID(chat), 99, owner_id=claim.owner_id)
        event = await heard(socket, "action_required")
    data = event["data"]
    assert data["chat"]["status"] == "requires_action"
    call = {"tool_call_id": "c", "tool_name": "browser", "args": "{}"}
    assert data["tool_calls"] == [call]
    assert [item["kind"] for item in data["open_items"]] == ["tool_result"]


async def test_what_a_watch_begins_with_is_what_it_sees_when_it_looks_again(seed: Seed) -> None:
    """Else the first hint, or the first round of what changed, would tell news that are none."""
    await park(seed, await seed.claimed("asks its client"))
    await finish(seed, await seed.claimed("failed"), status="failed")
    await finish(seed, await seed.claimed("done"), answer("done"))
    await seed.claimed("running")
    put_away = await seed.chat_id("archived")
    await patch_chat(seed.db, seed.actor, put_away, ChatPatch(archived=True))
    reads = WatchReads(seed.db)
    looks = {look.id: look for look in await reads.owners([seed.actor.user_id])}
    seen = await reads.chats(list(looks))
    assert looks == {chat_id: sighting.look for chat_id, sighting in seen.items()}
    told = sorted((look.title, look.status, len(look.asks)) for look in looks.values())
    assert told == [
        ("archived", "waiting", 0),
        ("asks its client", "requires_action", 1),
        ("done", "waiting", 0),
        ("failed", "error", 0),
        ("running", "running", 0),
    ]


async def test_the_same_comes_as_server_sent_events(
    model: str, address: str, admin: Person
) -> None:
    headers = {"Authorization": f"Bearer {admin.token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=20) as http,
        http.stream("GET", f"http://{address}{BASE}/chats/watch") as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        chat = await new_chat(admin)
        event = await first_event(answer)
    assert event["kind"] == "created"
    assert event["chat"]["id"] == chat


async def first_event(answer: httpx2.Response) -> Any:
    async with asyncio.timeout(20):
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                return orjson.loads(line.removeprefix("data: "))
    return None


async def test_a_client_that_speaks_is_closed(address: str, admin: Person) -> None:
    async with open_socket(address, "/chats/watch", admin) as socket:
        await socket.send("hello?")
        assert await closing_code(socket) == 1003
