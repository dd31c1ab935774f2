"""Stopping turns and moving the queue through the front door."""

from typing import Any
from uuid import uuid4

import pytest

from tests.api.conftest import Person, text


async def create(person: Person) -> Any:
    answer = await person.post("/chats", {"content": text("first")})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def send(person: Person, chat: str, words: str, **fields: Any) -> Any:
    answer = await person.post(f"/chats/{chat}/messages", {"content": text(words)} | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def turns(person: Person, chat: str) -> list[str]:
    """Statuses, oldest first."""
    found = (await person.get(f"/chats/{chat}/turns")).json()["turns"]
    return [turn["status"] for turn in reversed(found)]


async def test_a_stop_is_answered_with_the_chat(member: Person, model: str) -> None:
    chat = (await create(member))["id"]
    await send(member, chat, "second")
    stopped = await member.post(f"/chats/{chat}/interrupt", {})
    assert (stopped.status_code, stopped.json()["status"]) == (200, "pending")
    assert await turns(member, chat) == ["interrupted", "pending"]
    again = await member.http.post(f"/api/experimental/chats/{chat}/interrupt")
    assert (again.status_code, again.json()["status"]) == (200, "waiting")
    idle = await member.post(f"/chats/{chat}/interrupt", None)
    assert idle.json() == again.json()


async def test_a_stop_may_name_its_turn(member: Person, model: str) -> None:
    created = await create(member)
    path = f"/chats/{created['id']}/interrupt"
    assert (await member.post(path, {"turn_id": str(uuid4())})).json()["status"] == "pending"
    named = await member.post(path, {"turn_id": created["turn"]["id"]})
    assert named.json()["status"] == "waiting"
    assert (await member.post(path, {"turn_id": "x"})).status_code == 400


async def test_a_message_may_interrupt(member: Person, model: str) -> None:
    chat = (await create(member))["id"]
    body = {"content": text("no, this"), "busy_behavior": "interrupt"}
    key = {"Idempotency-Key": "once"}
    sent = await member.post(f"/chats/{chat}/messages", body, headers=key)
    assert (sent.json()["queued"], sent.json()["message"]["content"]) == (False, text("no, this"))
    again = await member.post(f"/chats/{chat}/messages", body, headers=key)
    assert again.json() == sent.json()
    assert await turns(member, chat) == ["interrupted", "pending"]


async def test_the_queue_is_moved(member: Person, model: str) -> None:
    chat = (await create(member))["id"]
    second, third = await send(member, chat, "second"), await send(member, chat, "third")
    path = f"/chats/{chat}/queue/{third['turn']['id']}"
    promoted = await member.post(f"{path}/promote", None)
    assert promoted.status_code == 200
    assert promoted.json()["queued"] is False
    assert promoted.json()["turn"]["id"] == third["turn"]["id"]
    assert promoted.json()["message"]["content"] == text("third")
    deleted = await member.delete(f"/chats/{chat}/queue/{second['turn']['id']}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    messages = (await member.get(f"/chats/{chat}/messages")).json()
    assert messages["queued_messages"] == []


@pytest.mark.parametrize("what", ["gone", "running", "unknown"])
async def test_what_does_not_wait_is_not_found(member: Person, model: str, what: str) -> None:
    created = await create(member)
    chat = created["id"]
    gone = (await send(member, chat, "x"))["turn"]["id"]
    await member.delete(f"/chats/{chat}/queue/{gone}")
    turn = {"gone": gone, "running": created["turn"]["id"], "unknown": str(uuid4())}[what]
    path = f"/chats/{chat}/queue/{turn}"
    for answer in (await member.delete(path), await member.post(f"{path}/promote", None)):
        assert (answer.status_code, answer.json()["message"]) == (404, "Queued message not found.")


async def test_other_peoples_turns_are_left_alone(
    member: Person, admin: Person, model: str
) -> None:
    chat = (await create(member))["id"]
    turn = (await send(member, chat, "second"))["turn"]["id"]
    for answer in (
        await admin.post(f"/chats/{chat}/interrupt", {}),
        await admin.delete(f"/chats/{chat}/queue/{turn}"),
        await admin.post(f"/chats/{chat}/queue/{turn}/promote", None),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert await turns(member, chat) == ["pending", "queued"]
