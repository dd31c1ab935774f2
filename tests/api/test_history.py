"""Rewriting the history through the front door."""

from typing import Any
from uuid import uuid4

import pytest

from tests.api.conftest import BASE, Person, text


async def create(person: Person, words: str = "first") -> Any:
    answer = await person.post("/chats", {"content": text(words)})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def first_message(person: Person, chat: str) -> int:
    return (await person.get(f"/chats/{chat}/messages")).json()["messages"][-1]["id"]


async def edit(person: Person, chat: str, message: object, body: Any, **headers: str) -> Any:
    path = f"{BASE}/chats/{chat}/messages/{message}"
    return await person.http.patch(path, json=body, headers=headers)


OTHER: dict[str, Any] = {"content": text("other")}


async def test_a_message_is_edited(member: Person, model: str) -> None:
    chat = (await create(member))["id"]
    message = await first_message(member, chat)
    answer = await edit(member, chat, message, OTHER | {"plan_mode": "plan"})
    edited = answer.json()
    assert answer.status_code == 200
    assert (edited["deleted_message_ids"], edited["warnings"]) == ([message], [])
    assert edited["messages"] == [edited["message"]]
    assert (edited["turn"]["status"], edited["turn"]["plan_mode"]) == ("pending", "plan")
    found = (await member.get(f"/chats/{chat}/messages")).json()["messages"]
    assert found == [edited["message"]]
    statuses = [
        turn["status"] for turn in (await member.get(f"/chats/{chat}/turns")).json()["turns"]
    ]
    assert statuses == ["pending", "superseded"]


async def test_an_edit_is_repeated_under_its_key(member: Person, model: str) -> None:
    chat = (await create(member))["id"]
    message = await first_message(member, chat)
    key = {"Idempotency-Key": "once"}
    first = await edit(member, chat, message, OTHER, **key)
    again = await edit(member, chat, message, OTHER, **key)
    assert (again.status_code, again.json()) == (200, first.json())
    another = await edit(member, chat, message, {"content": text("third")}, **key)
    assert another.status_code == 409


async def test_an_edit_may_be_answered_with_its_stream(member: Person, model: str) -> None:
    chat = (await create(member))["id"]
    message = await first_message(member, chat)
    headers = {"Accept": "text/event-stream"}
    refused = await edit(member, chat, message + 1000, OTHER, **headers)
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("message", "status", "says"),
    [
        ("0", 400, "Invalid message ID."),
        ("-1", 400, "Invalid message ID."),
        ("x", 400, "Invalid message ID."),
        ("9223372036854775807", 404, "Chat message not found."),
    ],
)
async def test_a_bad_message_id_is_refused(
    member: Person, model: str, message: str, status: int, says: str
) -> None:
    chat = (await create(member))["id"]
    answer = await edit(member, chat, message, OTHER)
    assert (answer.status_code, answer.json()["message"]) == (status, says)


async def test_a_message_is_answered_again(member: Person, model: str) -> None:
    chat = (await create(member))["id"]
    for body in (b'{"plan_mode": "plan"}', b""):
        answer = await member.http.post(
            f"{BASE}/chats/{chat}/regenerate",
            content=body,
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code == 201, answer.text
        made = answer.json()
        assert (made["queued"], made["message"]["content"]) == (False, text("first"))
        assert made["turn"]["plan_mode"] == "plan"
    key = {"Idempotency-Key": "once"}
    first = await member.http.post(f"{BASE}/chats/{chat}/regenerate", headers=key)
    again = await member.http.post(f"{BASE}/chats/{chat}/regenerate", headers=key)
    assert again.json() == first.json()


async def test_a_chat_is_cleared_when_it_is_idle(member: Person, model: str) -> None:
    chat = (await create(member))["id"]
    busy = await member.post(f"/chats/{chat}/clear", None)
    assert (busy.status_code, busy.json()["message"]) == (409, "Chat is busy.")
    await member.post(f"/chats/{chat}/interrupt", {})
    cleared = await member.post(f"/chats/{chat}/clear", None)
    assert (cleared.status_code, cleared.json()["id"]) == (200, chat)
    nothing = await member.post(f"/chats/{chat}/regenerate", {})
    assert (nothing.status_code, nothing.json()["message"]) == (
        409,
        "There is nothing to regenerate.",
    )


async def test_a_compaction_is_a_turn(member: Person, model: str) -> None:
    chat = (await create(member))["id"]
    key = {"Idempotency-Key": "once"}
    made = await member.http.post(f"{BASE}/chats/{chat}/compact", headers=key)
    assert made.status_code == 201
    assert (made.json()["turn"]["kind"], made.json()["turn"]["status"]) == ("compact", "queued")
    assert (
        await member.http.post(f"{BASE}/chats/{chat}/compact", headers=key)
    ).json() == made.json()
    messages = (await member.get(f"/chats/{chat}/messages")).json()
    assert [waiting["kind"] for waiting in messages["queued_messages"]] == ["compact"]


async def test_reading_is_marked(member: Person, model: str) -> None:
    chat = (await create(member))["id"]
    for body in ({"message_id": await first_message(member, chat)}, {}, None):
        answer = await member.post(f"/chats/{chat}/read", body)
        assert (answer.status_code, answer.content) == (204, b"")
    assert (await member.http.post(f"{BASE}/chats/{chat}/read")).status_code == 204
    assert (await member.post(f"/chats/{chat}/read", {"message_id": 0})).status_code == 400


async def test_an_archived_chat_is_not_rewritten(member: Person, model: str) -> None:
    chat = (await create(member))["id"]
    message = await first_message(member, chat)
    await member.patch(f"/chats/{chat}", {"archived": True})
    for answer in (
        await edit(member, chat, message, OTHER),
        await member.post(f"/chats/{chat}/regenerate", {}),
        await member.post(f"/chats/{chat}/clear", None),
        await member.post(f"/chats/{chat}/compact", None),
    ):
        assert (answer.status_code, answer.json()["message"]) == (409, "Chat is archived.")


async def test_other_peoples_history_is_left_alone(
    member: Person, admin: Person, model: str
) -> None:
    mine = (await create(member))["id"]
    message = await first_message(member, mine)
    for chat in (mine, str(uuid4())):
        for answer in (
            await edit(admin, chat, message, OTHER),
            await admin.post(f"/chats/{chat}/regenerate", {}),
            await admin.post(f"/chats/{chat}/clear", None),
            await admin.post(f"/chats/{chat}/compact", None),
            await admin.post(f"/chats/{chat}/read", {}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert await first_message(member, mine) == message
