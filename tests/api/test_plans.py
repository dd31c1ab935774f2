"""A chat's plan over HTTP: read, and approved once."""

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from chatd.core.tools import OfferedTool, ToolCall, ToolResult
from chatd.core.work import CallOutcome, Claim, PlannedCall
from chatd.loop import result_part
from chatd.store import work
from chatd.store.db import Database
from chatd.store.ids import new_id
from chatd.store.plans import keep_plan
from chatd.store.work import claim_turns
from tests.api.conftest import Person, text
from tests.api.test_tools import chat_of
from tests.seed import answer


async def proposed(db: Database, person: Person, *contents: str) -> tuple[str, list[str]]:
    """A chat whose turn in plan mode has proposed these and ended; the plans' ids."""
    chat = await chat_of(person, plan_mode="plan")
    ids = await propose(db, *contents)
    return chat, ids


async def propose(db: Database, *contents: str) -> list[str]:
    """What the pending turn proposes before it ends."""
    (claim,) = await claim_turns(db, "w", 1)
    ids = [new_id() for _ in contents]
    for step, (file_id, content) in enumerate(zip(ids, contents, strict=True), 1):
        name = await keep_plan(db, claim, file_id, name=None, content=content)
        await tell(db, claim, step, orjson.dumps({"file_id": str(file_id), "name": name}).decode())
    await db.fetch(
        "UPDATE turns SET status = 'completed', lease_id = NULL, lease_expires_at = NULL,"
        " finished_at = clock_timestamp() WHERE id = $1",
        claim.turn_id,
    )
    return [str(file_id) for file_id in ids]


async def tell(db: Database, claim: Claim, step: int, result: str) -> None:
    """The messages of a step that proposes a plan."""
    tool = OfferedTool("propose_plan", "propose_plan", "", {}, kind="builtin", safe=True)
    planned = PlannedCall(ToolCall(f"p{step}", "propose_plan", "{}"), step, 1, tool)
    await work.commit_step(db, claim, [answer("", step, planned)], [planned], [], None)
    part: Any = result_part(planned, ToolResult(result))
    message = replace(answer("", step), role="tool", position=1, content=[part])
    done = CallOutcome(step, 1, "done", part)
    await work.commit_results(db, claim, [message], [done], [])


async def turns_of(person: Person, chat: str) -> list[Any]:
    return (await person.get(f"/chats/{chat}/turns")).json()["turns"]


async def test_there_is_no_plan_before_one_is_proposed(
    member: Person, model: str, db: Database
) -> None:
    chat = await chat_of(member, plan_mode="plan")
    assert (await member.get(f"/chats/{chat}/plan")).status_code == 404
    refused = await member.post(f"/chats/{chat}/plan/approve", {})
    assert (refused.status_code, refused.json()["message"]) == (409, "There is no plan to approve.")
    assert len(await turns_of(member, chat)) == 1


async def test_somebody_elses_plan_is_not_found(
    admin: Person, member: Person, model: str, db: Database
) -> None:
    chat, (plan,) = await proposed(db, member, "1.")
    assert (await admin.get(f"/chats/{chat}/plan")).status_code == 404
    assert (await admin.post(f"/chats/{chat}/plan/approve", {})).status_code == 404
    assert (await member.get(f"/chats/{uuid4()}/plan")).status_code == 404
    other = await chat_of(member)
    for path, body in (
        (f"/chats/{chat}/plan/approve", {"file_id": str(uuid4())}),
        (f"/chats/{other}/plan/approve", {"file_id": plan}),
        (f"/chats/{uuid4()}/plan/approve", {}),
    ):
        assert (await member.post(path, body)).status_code == 404
    assert len(await turns_of(member, chat)) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"file_id": "newest"},
        {"content": []},
        {"content": [{"type": "text", "text": " "}]},
        {"content": [{"type": "file", "file_id": str(UUID(int=1))}]},
        [],
    ],
)
async def test_a_bad_approval_approves_nothing(
    member: Person, model: str, db: Database, body: Any
) -> None:
    chat, _ = await proposed(db, member, "1.")
    refused = await member.post(f"/chats/{chat}/plan/approve", body)
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_request")
    assert (await member.get(f"/chats/{chat}/plan")).json()["approved_at"] is None
    assert len(await turns_of(member, chat)) == 1


async def test_only_the_newest_plan_of_a_chat_in_use_is_approved(
    member: Person, model: str, db: Database
) -> None:
    chat, (old, newest) = await proposed(db, member, "1.", "2.")
    path = f"/chats/{chat}/plan/approve"
    refused = await member.post(path, {"file_id": old})
    assert (refused.status_code, refused.json()["message"]) == (409, "There is a newer plan.")
    await member.patch(f"/chats/{chat}", {"archived": True})
    refused = await member.post(path, {"file_id": newest})
    assert (refused.status_code, refused.json()["message"]) == (409, "Chat is archived.")
    await member.patch(f"/chats/{chat}", {"archived": False})
    assert (await member.post(path, {"file_id": newest})).status_code == 201


async def test_the_newest_plan_is_shown_and_listed_among_the_chats_files(
    member: Person, model: str, db: Database
) -> None:
    chat, (old, newest) = await proposed(db, member, "1.", "# Plan\n\n2. é")
    plan = (await member.get(f"/chats/{chat}/plan")).json()
    assert plan.pop("created_at")
    assert plan == {
        "file_id": newest,
        "name": "plan-2.md",
        "content": "# Plan\n\n2. é",
        "approved_at": None,
    }
    listed = (await member.get(f"/chats/{chat}")).json()["files"]
    assert [(file["id"], file["media_type"]) for file in listed] == [
        (old, "text/markdown"),
        (newest, "text/markdown"),
    ]
    data = await member.get(f"/chats/files/{newest}")
    assert (data.headers["content-type"], data.text) == (
        "text/markdown",
        "# Plan\n\n2. é",
    )


async def test_an_approval_is_a_message_with_the_plan_and_turns_plan_mode_off(
    member: Person, model: str, db: Database
) -> None:
    chat, (plan,) = await proposed(db, member, "1. Dig.")
    said = {"file_id": plan, "content": text("But not too deep.")}
    answer = await member.post(f"/chats/{chat}/plan/approve", said)
    assert answer.status_code == 201
    body = answer.json()
    assert body.keys() == {"queued", "turn", "message", "warnings"}
    assert (body["queued"], body["turn"]["plan_mode"]) == (False, None)
    parts = body["message"]["content"]
    assert [part["type"] for part in parts] == ["text", "file-reference", "text"]
    assert (parts[1]["file_name"], parts[1]["content"]) == ("plan-1.md", "1. Dig.")
    assert parts[2]["text"] == "But not too deep."
    assert (await member.get(f"/chats/{chat}")).json()["plan_mode"] is None
    approved = (await member.get(f"/chats/{chat}/plan")).json()["approved_at"]
    assert approved == body["turn"]["queued_at"]


async def test_a_plan_is_approved_once(member: Person, model: str, db: Database) -> None:
    chat, _ = await proposed(db, member, "1.")
    path = f"/chats/{chat}/plan/approve"
    first = await member.post(path, {}, headers={"Idempotency-Key": "k"})
    again = await member.post(path, {}, headers={"Idempotency-Key": "k"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json()["turn"]["id"] == first.json()["turn"]["id"]
    other = await member.post(path, {"content": text("x")}, headers={"Idempotency-Key": "k"})
    assert other.status_code == 409
    twice = await member.post(path, {})
    assert (twice.status_code, twice.json()["message"]) == (409, "This plan was approved before.")
    assert len(await turns_of(member, chat)) == 2


async def test_an_approval_without_a_body_is_one(member: Person, model: str, db: Database) -> None:
    chat, _ = await proposed(db, member, "1.")
    answer = await member.http.post(
        f"/api/experimental/chats/{chat}/plan/approve", headers={"Idempotency-Key": "k"}
    )
    assert answer.status_code == 201


async def test_an_approval_that_was_taken_back_is_none(
    member: Person, model: str, db: Database
) -> None:
    chat, (plan,) = await proposed(db, member, "1.")
    path = f"/chats/{chat}/plan"
    await member.post(f"/chats/{chat}/messages", {"content": text("wait")})
    queued = (await member.post(f"{path}/approve", {})).json()["turn"]
    assert queued["status"] == "queued"
    assert (await member.get(path)).json()["approved_at"]
    await member.delete(f"/chats/{chat}/queue/{queued['id']}")
    assert (await member.get(path)).json()["approved_at"] is None
    await propose(db)
    sent = (await member.post(f"{path}/approve", {"file_id": plan})).json()
    edit = {"content": text("no, wait")}
    await member.patch(f"/chats/{chat}/messages/{sent['message']['id']}", edit)
    assert (await member.get(path)).json()["approved_at"] is None


async def first_message(person: Person, chat: str) -> int:
    return (await person.get(f"/chats/{chat}/messages")).json()["messages"][-1]["id"]


async def test_an_approval_that_is_regenerated_is_still_one(
    member: Person, model: str, db: Database
) -> None:
    chat, (plan,) = await proposed(db, member, "1.")
    await member.post(f"/chats/{chat}/plan/approve", {"file_id": plan})
    for _ in range(2):
        turn = (await member.post(f"/chats/{chat}/regenerate", {})).json()["turn"]
        approved = (await member.get(f"/chats/{chat}/plan")).json()["approved_at"]
        assert approved == turn["queued_at"]
        refused = await member.post(f"/chats/{chat}/plan/approve", {"file_id": plan})
        assert refused.json()["message"] == "This plan was approved before."


async def test_a_plan_that_was_edited_away_is_no_plan(
    member: Person, model: str, db: Database
) -> None:
    chat, (plan,) = await proposed(db, member, "1.")
    edited = {"content": text("another question"), "plan_mode": "plan"}
    await member.patch(f"/chats/{chat}/messages/{await first_message(member, chat)}", edited)
    assert (await member.get(f"/chats/{chat}/plan")).status_code == 404
    nothing = await member.post(f"/chats/{chat}/plan/approve", {})
    assert (nothing.status_code, nothing.json()["message"]) == (409, "There is no plan to approve.")
    gone = await member.post(f"/chats/{chat}/plan/approve", {"file_id": plan})
    assert (gone.status_code, gone.json()["message"]) == (
        409,
        "This plan is no part of the chat any more.",
    )


async def test_when_the_newest_plan_is_edited_away_the_one_before_it_is_the_newest(
    member: Person, model: str, db: Database
) -> None:
    chat, (first,) = await proposed(db, member, "1.")
    said = {"content": text("shorter"), "plan_mode": "plan"}
    message = (await member.post(f"/chats/{chat}/messages", said)).json()["message"]
    await propose(db, "2.")
    await member.patch(f"/chats/{chat}/messages/{message['id']}", {"content": text("no")})
    assert (await member.get(f"/chats/{chat}/plan")).json()["file_id"] == first


async def test_a_plan_whose_turn_was_superseded_before_it_was_told_is_none(
    member: Person, model: str, db: Database
) -> None:
    chat = await chat_of(member, plan_mode="plan")
    (claim,) = await claim_turns(db, "w", 1)
    await keep_plan(db, claim, new_id(), name=None, content="1.")
    edited = {"content": text("another question")}
    await member.patch(f"/chats/{chat}/messages/{await first_message(member, chat)}", edited)
    refused = await member.post(f"/chats/{chat}/plan/approve", {})
    assert (refused.status_code, refused.json()["message"]) == (409, "There is no plan to approve.")
