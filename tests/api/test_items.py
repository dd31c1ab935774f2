"""Answering open items over HTTP: who may, when, and what is refused."""

from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from chatd.api.limits import MAX_DEPTH
from chatd.core.items import NewItem
from chatd.core.tools import OfferedTool, ToolCall
from chatd.core.work import Claim, PlannedCall
from chatd.queue import WAKE_LIST
from chatd.store.db import Database
from chatd.store.items import park_turn
from chatd.store.work import claim_turns, commit_step
from tests.api.conftest import BASE, Person
from tests.api.test_tools import add, chat_of
from tests.seed import answer
from tests.waiting import until

FORM = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


async def parked(
    db: Database, person: Person, server: str, item: NewItem, *, calls: int = 1
) -> tuple[str, list[Any]]:
    """A chat whose turn waits for this; what the API says of it."""
    chat = await chat_of(person)
    claims = await claim_turns(db, "w", 1)
    await park(db, claims[0], server, item, calls)
    (turn,) = (await person.get(f"/chats/{chat}/turns")).json()["turns"]
    assert turn["status"] == "requires_action"
    return chat, turn["open_items"]


async def park(db: Database, claim: Claim, server: str, item: NewItem, calls: int) -> None:
    tool = OfferedTool("demo__add", "add", "", {}, server_id=UUID(server))
    planned = [
        PlannedCall(ToolCall(f"c{place}", "demo__add", "{}"), 1, place, tool)
        for place in range(1, calls + 1)
    ]
    await commit_step(db, claim, [answer("", 1, *planned)], planned, [], None)
    waiting = [(each, item) for each in planned]
    await park_turn(db, claim, 1, [], waiting, [])


def approval(server: str) -> NewItem:
    data = {"tool_name": "demo__add", "args": "{}", "server_id": server, "original_name": "add"}
    return NewItem("approval", data, 60, {"definition_hash": "x"})


@pytest.fixture
async def server(admin: Person, model: str) -> str:
    return await add(admin, "demo", "http://127.0.0.1:9/mcp")


async def status_of(person: Person, chat: str) -> str:
    return (await person.get(f"/chats/{chat}")).json()["status"]


async def test_an_approval_lets_the_turn_go_on(member: Person, server: str, db: Database) -> None:
    chat, (item,) = await parked(db, member, server, approval(server))
    assert await status_of(member, chat) == "requires_action"
    assert "definition_hash" not in str(item)
    path = f"/chats/{chat}/approvals/{item['id']}"
    first = await member.post(path, {"decision": "approve"})
    assert (first.status_code, first.json()["state"]) == (200, "answered")
    assert first.json()["answer"] == {"decision": "approve"}
    again = await member.post(path, {"decision": "approve"})
    assert (again.status_code, again.json()) == (200, first.json())
    other = await member.post(path, {"decision": "deny"})
    assert other.status_code == 409
    assert await status_of(member, chat) == "pending"


async def test_an_answer_in_vain_wakes_a_worker_too(
    redis: Redis, member: Person, server: str, db: Database
) -> None:
    """While it held the chat's lock, a claim may have passed over the turn that goes on."""
    chat, (item,) = await parked(db, member, server, approval(server))
    path = f"/chats/{chat}/approvals/{item['id']}"
    for decision in ("approve", "approve", "deny"):
        await member.post(path, {"decision": decision})

    async def wakes() -> bool:
        return await cast(Any, redis).llen(WAKE_LIST) == 4  # the first is the message's

    await until(wakes)


async def test_what_policy_no_longer_allows_cannot_be_approved_and_is_denied_at_once(
    admin: Person, member: Person, server: str, db: Database
) -> None:
    chat, (item,) = await parked(db, member, server, approval(server))
    await admin.patch(f"/mcp/servers/{server}", {"tool_deny_list": ["add"]})
    path = f"/chats/{chat}/approvals/{item['id']}"
    refused = await member.post(path, {"decision": "approve"})
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")

    async def goes_on() -> bool:
        return await status_of(member, chat) == "pending"

    await until(goes_on)
    late = await member.post(path, {"decision": "deny", "reason": "no"})
    assert (late.status_code, late.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(("mode", "since", "status"), [("plan", "", 409), ("", "plan", 200)])
async def test_policy_is_asked_about_the_turn_that_waits_not_about_the_chat_as_it_is(
    admin: Person, member: Person, model: str, db: Database, mode: str, since: str, status: int
) -> None:
    server = await add(admin, "demo", "http://127.0.0.1:9/mcp", availability="default_off")
    chat = await chat_of(member, plan_mode=mode, mcp_server_ids=[server])
    (claim,) = await claim_turns(db, "w", 1)
    await park(db, claim, server, approval(server), 1)
    await member.patch(f"/chats/{chat}", {"plan_mode": since, "mcp_server_ids": []})
    (turn,) = (await member.get(f"/chats/{chat}/turns")).json()["turns"]
    path = f"/chats/{chat}/approvals/{turn['open_items'][0]['id']}"
    answered = await member.post(path, {"decision": "approve"})
    assert answered.status_code == status
    assert (await member.post(path, {"decision": "deny"})).status_code == (
        200 if status == 409 else 409
    )


async def test_a_strangers_item_and_one_that_is_not_there_are_not_found(
    admin: Person, member: Person, server: str, db: Database
) -> None:
    chat, (item,) = await parked(db, member, server, approval(server))
    said = {"decision": "approve"}
    for person, path in (
        (admin, f"/chats/{chat}/approvals/{item['id']}"),
        (member, f"/chats/{chat}/approvals/{uuid4()}"),
        (member, f"/chats/{uuid4()}/approvals/{item['id']}"),
    ):
        assert (await person.post(path, said)).status_code == 404
    wrong_kind = await member.post(f"/chats/{chat}/elicitations/{item['id']}", {"action": "accept"})
    assert wrong_kind.status_code == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("approvals/{item}", {"decision": "maybe"}),
        ("approvals/{item}", {}),
        ("approvals/{item}", {"decision": "deny", "reason": "x" * 1001}),
        ("approvals/nobody", {"decision": "deny"}),
        ("elicitations/{item}", {"action": "agree"}),
        ("elicitations/{item}", {"action": "accept", "content": [1]}),
        ("tool-results", {"results": []}),
        ("tool-results", {"results": [{"tool_call_id": "", "output": 1}]}),
        ("tool-results", {"results": [{"tool_call_id": "c1"}]}),
        ("tool-results", {"results": [{"tool_call_id": "c1", "output": 1}] * 2}),
    ],
)
async def test_a_bad_answer_changes_nothing(
    member: Person, server: str, db: Database, path: str, body: Any
) -> None:
    chat, (item,) = await parked(db, member, server, approval(server))
    answered = await member.post(f"/chats/{chat}/{path.format(item=item['id'])}", body)
    assert (answered.status_code, answered.json()["code"]) == (400, "bad_request")
    assert await status_of(member, chat) == "requires_action"


async def test_tool_results_answer_all_open_calls_together(
    member: Person, server: str, db: Database
) -> None:
    data = {"tool_name": "pick", "args": "{}"}
    chat, items = await parked(db, member, server, NewItem("tool_result", data, 60), calls=2)
    assert [item["tool_call_id"] for item in items] == ["c1", "c2"]
    path = f"/chats/{chat}/tool-results"
    one = {"tool_call_id": "c1", "output": {"a": [1]}}
    assert (await member.post(path, {"results": [one]})).status_code == 400
    both = {"results": [one, {"tool_call_id": "c2", "output": "plain", "is_error": True}]}
    assert (await member.post(path, both)).status_code == 204
    rows = await db.fetch("SELECT answer->>'text' AS text FROM open_items ORDER BY position")
    assert [row["text"] for row in rows] == ['{"a":[1]}', "plain"]
    late = await member.post(path, both)
    assert (late.status_code, late.json()["message"]) == (
        409,
        "Chat is not waiting for tool results.",
    )


async def test_a_forms_answer_is_checked_against_the_form(
    member: Person, server: str, db: Database
) -> None:
    data = {"mode": "form", "message": "Age?", "schema": FORM}
    chat, (item,) = await parked(db, member, server, NewItem("elicitation", data, 60))
    path = f"/chats/{chat}/elicitations/{item['id']}"
    for content in ({"age": "old"}, {}, {"age": 3, "more": 1}, None):
        refused = await member.post(path, {"action": "accept", "content": content})
        assert (refused.status_code, refused.json()["code"]) == (400, "bad_request")
    for content in (
        {"age": [["x"]]},
        {"age": {"a": 1}},
        {"age": ["x"] * 101},
        {"age": "x" * 66_000},
    ):
        refused = await member.post(path, {"action": "accept", "content": content})
        assert (refused.status_code, refused.json()["code"]) == (400, "bad_request")
        assert len(refused.text) < 2000
    fine = await member.post(path, {"action": "accept", "content": {"age": 36}})
    assert fine.json()["answer"] == {"action": "accept", "content": {"age": 36}}


@pytest.mark.parametrize(
    "field", [{"type": "file"}, "text", {"anyOf": {"type": 1}}, {"minLength": "x"}, {"enum": 5}]
)
async def test_a_form_that_makes_no_sense_can_be_answered(
    member: Person, server: str, db: Database, field: Any
) -> None:
    """The server sees what the user said, instead of a turn that nobody can free."""
    schema = {"type": "object", "properties": {"a": field}}
    data = {"mode": "form", "message": "?", "schema": schema}
    chat, (item,) = await parked(db, member, server, NewItem("elicitation", data, 60))
    path = f"/chats/{chat}/elicitations/{item['id']}"
    fine = await member.post(path, {"action": "accept", "content": {"a": "b"}})
    assert fine.status_code == 200, fine.text


async def test_json_that_nests_too_deeply_to_be_kept_is_a_bad_request(
    member: Person, server: str, db: Database
) -> None:
    data = {"tool_name": "pick", "args": "{}"}
    chat, _ = await parked(db, member, server, NewItem("tool_result", data, 60))
    for depth in (MAX_DEPTH, 1000, 100_000):
        output = "[" * depth + "]" * depth
        body = f'{{"results": [{{"tool_call_id": "c1", "output": {output}}}]}}'
        answered = await member.http.post(
            f"{BASE}/chats/{chat}/tool-results",
            content=body,
            headers={"content-type": "application/json"},
        )
        assert (answered.status_code, answered.json()["code"]) == (400, "bad_request")
    assert await status_of(member, chat) == "requires_action"


async def test_an_archived_chats_items_are_closed(
    member: Person, server: str, db: Database
) -> None:
    chat, (item,) = await parked(db, member, server, approval(server))
    await member.patch(f"/chats/{chat}", {"archived": True})
    refused = await member.post(f"/chats/{chat}/approvals/{item['id']}", {"decision": "approve"})
    assert refused.status_code == 409
