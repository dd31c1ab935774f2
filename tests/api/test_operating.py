"""Operators: everybody's turns without what is said in them, ending them, pausing claims."""

from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from chatd.dev.valkey import Valkey
from chatd.queue import POLICY, WAKE_LIST
from chatd.store.db import Database, load
from chatd.store.work import claim_turns
from tests.api.conftest import Person, text
from tests.api.test_items import approval, parked
from tests.api.test_tools import add
from tests.waiting import one, until

SECRET = "canary-of-the-member"


async def posted(person: Person, words: str = SECRET) -> Any:
    """A new chat's turn."""
    answer = await person.post("/chats", {"content": text(words)})
    assert answer.status_code == 201, answer.text
    return answer.json()["turn"]


async def listed(admin: Person, query: str = "") -> list[Any]:
    answer = await admin.get(f"/turns{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()["turns"]


async def audited(db: Database, action: str, kind: str) -> list[Any]:
    rows = await db.fetch(
        "SELECT target_id, before, after FROM audit_log WHERE action = $1 AND target_type = $2"
        " ORDER BY id",
        action,
        kind,
    )
    return [(row["target_id"], load(row["before"]), load(row["after"])) for row in rows]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/turns"),
        ("POST", f"/turns/{UUID(int=1)}/cancel"),
        ("GET", "/chats/config/claims"),
        ("PUT", "/chats/config/claims"),
    ],
)
async def test_members_operate_nothing(member: Person, method: str, path: str) -> None:
    body = {"paused": True} if method == "PUT" else None
    url = f"/api/experimental{path}"
    assert (await member.http.request(method, url, json=body)).status_code == 403


@pytest.mark.parametrize(
    "query", ["?status=nonsense", "?owner=7", "?before=x", "?limit=0", "?limit=201"]
)
async def test_a_bad_question_is_refused(admin: Person, query: str) -> None:
    assert (await admin.get(f"/turns{query}")).status_code == 400


async def test_any_turn_is_listed_without_what_is_said_in_it(
    admin: Person, member: Person, model: str, db: Database
) -> None:
    first = await posted(member)
    second = await posted(admin)
    await claim_turns(db, "worker-7", 1)
    answer = await admin.get("/turns")
    assert SECRET not in answer.text
    newest, oldest = answer.json()["turns"]
    assert (newest["id"], oldest["id"]) == (second["id"], first["id"])
    assert (oldest["owner_id"], oldest["chat_id"]) == (str(member.user.id), first["chat_id"])
    assert (oldest["status"], oldest["worker_id"], oldest["attempt"]) == ("running", "worker-7", 1)
    assert (newest["model_config_id"], newest["provider"]) == (model, "x")
    assert newest["age_s"] >= 0


async def test_turns_are_found_by_status_owner_worker_and_page(
    admin: Person, member: Person, model: str, db: Database
) -> None:
    turns = [await posted(member), await posted(admin)]
    await claim_turns(db, "worker-7", 1)
    first, second = (turn["id"] for turn in turns)

    async def found(query: str) -> list[str]:
        return [turn["id"] for turn in await listed(admin, query)]

    assert await found("?status=pending") == [second]
    assert await found("?worker=worker-7") == [first]
    assert await found(f"?owner={member.user.id}&status=running") == [first]
    assert await found(f"?owner={uuid4()}") == []
    assert await found("?limit=1") == [second]
    assert await found(f"?before={second}&limit=1") == [first]


async def test_a_running_turn_is_told_to_stop_and_the_reason_is_kept(
    admin: Person, member: Person, model: str, db: Database
) -> None:
    turn = await posted(member)
    await claim_turns(db, "w", 1)
    answer = await admin.post(f"/turns/{turn['id']}/cancel", {"reason": "it burns money"})
    assert (answer.status_code, answer.json()["status"]) == (200, "interrupting")
    ((target, before, after),) = await audited(db, "cancel", "turn")
    assert target == turn["id"]
    assert before["status"] == "running"
    assert after == {
        "status": "interrupting",
        "owner_id": str(member.user.id),
        "reason": "it burns money",
    }
    again = await admin.post(f"/turns/{turn['id']}/cancel", {})
    assert (again.status_code, again.json()["status"]) == (200, "interrupting")


async def test_the_queue_goes_on_after_a_cancelled_turn(
    admin: Person, member: Person, model: str
) -> None:
    turn = await posted(member)
    sent = await member.post(f"/chats/{turn['chat_id']}/messages", {"content": text("next")})
    assert sent.json()["queued"] is True
    answer = await admin.http.post(f"/api/experimental/turns/{turn['id']}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "interrupted")
    statuses = [found["status"] for found in await listed(admin)]
    assert statuses == ["pending", "interrupted"]


async def test_a_queued_turn_is_taken_out_of_the_queue(
    admin: Person, member: Person, model: str
) -> None:
    turn = await posted(member)
    path = f"/chats/{turn['chat_id']}/messages"
    queued = (await member.post(path, {"content": text("next")})).json()["turn"]
    answer = await admin.post(f"/turns/{queued['id']}/cancel", {})
    assert answer.json()["status"] == "cancelled"
    assert [found["status"] for found in await listed(admin)] == ["cancelled", "pending"]


async def test_what_is_over_or_unknown_is_not_cancelled(
    admin: Person, member: Person, model: str, db: Database
) -> None:
    turn = await posted(member)
    path = f"/turns/{turn['id']}/cancel"
    assert (await admin.post(path, {})).status_code == 200
    answer = await admin.post(path, {})
    assert (answer.status_code, answer.json()["detail"]) == (409, "interrupted")
    assert (await admin.post(f"/turns/{uuid4()}/cancel", {})).status_code == 404
    assert (await admin.post("/turns/x/cancel", {})).status_code == 400
    assert (await admin.post(path, {"resaon": "typo"})).status_code == 400
    assert len(await audited(db, "cancel", "turn")) == 1


# --- claims


async def test_paused_claims_leave_everything_else_as_it_is(
    admin: Person, member: Person, model: str, db: Database, redis: Redis
) -> None:
    await posted(member)
    (running,) = await claim_turns(db, "w", 1)
    assert (await admin.get("/chats/config/claims")).json() == {"paused": False}
    assert (await admin.put("/chats/config/claims", {"paused": True})).json() == {"paused": True}
    assert (await admin.get("/chats/config/claims")).json() == {"paused": True}
    waiting = await posted(member)
    assert (await admin.http.get("/readyz")).json()["status"] == "ok"
    assert await claim_turns(db, "w", 4) == []
    assert (await one(db, "SELECT lease_id FROM turns WHERE id = $1", running.turn_id))[0]
    await redis.delete(WAKE_LIST)
    await admin.put("/chats/config/claims", {"paused": False})

    async def woken() -> bool:
        return await cast(Any, redis).llen(WAKE_LIST) > 0

    await until(woken)
    assert [str(claim.turn_id) for claim in await claim_turns(db, "w", 4)] == [waiting["id"]]
    changes = [
        (before, after) for _, before, after in await audited(db, "update", "deployment_setting")
    ]
    assert changes == [
        ({"paused": False}, {"paused": True}),
        ({"paused": True}, {"paused": False}),
    ]


@pytest.mark.parametrize("body", [{}, {"paused": 1}, {"paused": None}, {"pause": True}])
async def test_a_pause_is_said_exactly(admin: Person, body: Any, db: Database) -> None:
    assert (await admin.put("/chats/config/claims", body)).status_code == 400
    assert (await one(db, "SELECT claims_paused FROM policy_state"))[0] is False


# --- what administrators change is told


@pytest.fixture
async def server(admin: Person, model: str) -> str:
    return await add(admin, "demo", "http://127.0.0.1:9/mcp")


async def test_every_process_is_told_of_a_change_and_of_no_failed_one(
    admin: Person, server: str, redis: Redis
) -> None:
    pubsub: Any = cast(Any, redis).pubsub()
    await pubsub.subscribe(POLICY)
    assert (await pubsub.get_message(timeout=5))["type"] == "subscribe"
    assert (await admin.patch(f"/mcp/servers/{uuid4()}", {"enabled": False})).status_code == 404
    assert await pubsub.get_message(timeout=0.2) is None
    assert (await admin.patch(f"/mcp/servers/{server}", {"enabled": False})).status_code == 200
    assert (await pubsub.get_message(timeout=5))["channel"] == POLICY.encode()
    await pubsub.aclose()


async def closed(db: Database) -> Any:
    """The only open item, once it is not open any more."""

    async def answered() -> Any:
        row = await one(db, "SELECT state, answer, answered_by FROM open_items")
        return row if row["state"] != "open" else None

    return await until(answered)


@pytest.mark.parametrize("redis_is", ["there", "away"])
async def test_disabling_a_server_closes_the_approvals_for_its_calls_at_once(
    admin: Person, member: Person, server: str, db: Database, valkey: Valkey, redis_is: str
) -> None:
    chat, _ = await parked(db, member, server, approval(server))
    if redis_is == "away":
        valkey.kill()
    try:
        answer = await admin.patch(f"/mcp/servers/{server}", {"enabled": False})
        assert answer.status_code == 200
        row = await closed(db)
    finally:
        if redis_is == "away":
            await valkey.restart()
    assert row["answered_by"] is None
    assert load(row["answer"]) == {
        "decision": "deny",
        "reason": "An administrator has disabled this server.",
    }
    turns = (await member.get(f"/chats/{chat}/turns")).json()["turns"]
    assert [turn["status"] for turn in turns] == ["pending"]


async def test_denying_another_tool_closes_nothing(
    admin: Person, member: Person, server: str, db: Database, app: FastAPI
) -> None:
    chat, items = await parked(db, member, server, approval(server))
    path = f"/mcp/servers/{server}"
    assert (await admin.patch(path, {"tool_deny_list": ["another"]})).status_code == 200
    answered = {"decision": "approve"}
    answer = await member.post(f"/chats/{chat}/approvals/{items[0]['id']}", answered)
    assert answer.status_code < 300, answer.text
    assert (await admin.patch(path, {"tool_deny_list": ["add"]})).status_code == 200
    assert load((await closed(db))["answer"]) == answered
