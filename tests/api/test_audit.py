"""The audit log through the front door: who may read it, what it tells, and what it never tells."""

from hashlib import sha256
from typing import Any
from uuid import UUID

import orjson
import pytest
from fastapi import FastAPI

from chatd.core.chats import Actor
from chatd.core.connections import ConnectionEvent
from chatd.core.errors import Conflict
from chatd.core.tools import OfferedTool, ToolCall
from chatd.core.work import PlannedCall
from chatd.dev.served import Served
from chatd.store import purging
from chatd.store.answering import answer_item
from chatd.store.config import read_config
from chatd.store.connections import add_connections
from chatd.store.db import Database
from chatd.store.work import claim_turns, commit_step, mark_sent, record_result
from tests.api.conftest import Person, enter
from tests.api.test_items import approval, parked
from tests.api.test_tools import add, chat_of
from tests.seed import answer
from tests.store.working import outcome
from tests.waiting import until

CANARY = "canary-5up3r-s3cr3t-value"
SETTINGS = {"arguments": "hash", "retention_days": 365, "connection_retention_days": 30}


@pytest.fixture
async def server(admin: Person, model: str) -> str:
    return await add(admin, "demo", "http://127.0.0.1:9/mcp")


async def call(db: Database, person: Person, server: str, arguments: str) -> str:
    """A chat whose turn has made this call; its id."""
    chat = await chat_of(person)
    (claim,) = await claim_turns(db, "w", 1)
    tool = OfferedTool("demo__add", "add", "", {}, server_id=UUID(server))
    planned = PlannedCall(ToolCall("c1", "demo__add", arguments), 1, 1, tool)
    await commit_step(db, claim, [answer("", 1, planned)], [planned], [], None)
    version = await db.fetch_one("SELECT version FROM policy_state")
    assert version is not None
    await mark_sent(db, claim, 1, [1], version["version"])
    await record_result(db, claim, outcome(1))
    return chat


async def connect(db: Database, server: str, **more: Any) -> None:
    values: dict[str, Any] = {"outcome": "connected", "duration_ms": 12, **more}
    event = ConnectionEvent(UUID(server), "demo", values.pop("user_id", None), **values)
    await add_connections(db, "worker-1", [event])


async def lines(admin: Person, **filters: str) -> list[dict[str, Any]]:
    found = await admin.get("/audit", params=filters)
    assert found.status_code == 200, found.text
    return found.json()["lines"]


# --- who may, and what is refused


@pytest.mark.parametrize("path", ["/audit", "/audit/export", "/chats/config/audit"])
async def test_members_read_nothing_of_it(member: Person, path: str) -> None:
    assert (await member.get(path)).status_code == 403


async def test_members_do_not_set_how_it_is_kept(member: Person, db: Database) -> None:
    body = SETTINGS | {"retention_days": 1}
    assert (await member.put("/chats/config/audit", body)).status_code == 403
    assert (await read_config(db)).audit.retention_days == 365


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "turn"),
        ("limit", "0"),
        ("limit", "201"),
        ("before", "x"),
        ("before", "MTIzLjkuMQ"),
        ("actor", "ada"),
        ("server", "demo"),
        ("action", ""),
        ("tool", "x" * 257),
        ("from", "yesterday"),
        ("from", "2026-01-01T00:00:00"),
        ("to", "0001-01-01T00:00:00+14:00"),
        ("since", "2026-01-01T00:00:00Z"),
        ("actors", "01a1feb5-2f91-761e-b84c-6edf4625a650"),
    ],
)
async def test_a_filter_that_is_none_is_refused_by_its_name(
    admin: Person, name: str, value: str
) -> None:
    found = await admin.get("/audit", params={name: value})
    assert found.status_code == 400, found.text
    assert [each["field"] for each in found.json()["validations"]] == [name]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"arguments": "hash"},
        SETTINGS | {"arguments": "all"},
        SETTINGS | {"retention_days": -1},
        SETTINGS | {"retention_days": 3651},
        SETTINGS | {"connection_retention_days": "30"},
    ],
)
async def test_a_setting_that_is_none_changes_nothing(
    admin: Person, db: Database, body: dict[str, Any]
) -> None:
    assert (await admin.put("/chats/config/audit", body)).status_code == 400
    assert (await read_config(db)).audit.model_dump() == SETTINGS


async def test_how_it_is_kept_is_set_and_audited(admin: Person) -> None:
    assert (await admin.get("/chats/config/audit")).json() == SETTINGS
    new = {"arguments": "redacted", "retention_days": 0, "connection_retention_days": 7}
    assert (await admin.put("/chats/config/audit", new)).json() == new
    assert (await admin.get("/chats/config/audit")).json() == new
    (line,) = await lines(admin, target_type="deployment_setting")
    assert (line["before"], line["after"]) == ({"audit": SETTINGS}, {"audit": new})


# --- what it tells


async def test_a_change_tells_who_did_what_to_what(admin: Person, server: str) -> None:
    body = {"description": "Adds."}
    assert (await admin.patch(f"/mcp/servers/{server}", body)).status_code == 200
    changed, created = await lines(admin, server=server)
    assert (changed["kind"], changed["action"]) == ("change", "update")
    assert (created["action"], created["before"]) == ("create", None)
    assert changed["actor_id"] == str(admin.user.id)
    assert changed["target"] == {"type": "mcp_server", "id": server}
    assert (changed["server_id"], changed["server"]) == (server, "demo")
    assert (changed["before"]["description"], changed["after"]["description"]) == ("", "Adds.")
    assert changed["request_id"]


@pytest.mark.parametrize(("decision", "told"), [("approve", "approved"), ("deny", "denied")])
async def test_an_approval_tells_who_decided_what_and_not_why(
    admin: Person, member: Person, server: str, db: Database, decision: str, told: str
) -> None:
    chat, (item,) = await parked(db, member, server, approval(server))
    said = {"decision": decision, "reason": "The password=hunter22 leaked."}
    actor, item_id = Actor(member.user.id, "member"), UUID(item["id"])
    for _ in range(2):
        await answer_item(db, actor, UUID(chat), item_id, "approval", said)
    with pytest.raises(Conflict):
        await answer_item(db, actor, UUID(chat), item_id, "approval", {"decision": "other"})
    (line,) = await lines(admin, kind="approval")
    assert (line["actor_id"], line["user_id"]) == (str(member.user.id),) * 2
    assert line["target"] == {"type": "approval", "id": item["id"]}
    assert (line["chat_id"], line["server_id"], line["server"]) == (chat, server, "demo")
    assert (line["tool"], line["action"], line["outcome"]) == ("add", decision, told)
    assert line["after"] == {
        "turn_id": line["after"]["turn_id"],
        "state": "answered",
        "decision": decision,
    }
    for filters in ({"outcome": told}, {"chat": chat}, {"tool": "add"}, {"action": decision}):
        assert line in await lines(admin, **filters)
    assert await lines(admin, outcome="approved" if told == "denied" else "denied") == []


async def test_a_call_tells_who_called_what_with_which_hash(
    admin: Person, member: Person, server: str, db: Database
) -> None:
    chat = await call(db, member, server, '{"a": 1}')
    (line,) = await lines(admin, kind="call")
    assert (line["actor_id"], line["chat_id"]) == (str(member.user.id), chat)
    assert (line["server"], line["tool"], line["outcome"]) == ("demo", "add", "done")
    assert line["arguments_sha256"] == sha256(b'{"a": 1}').hexdigest()
    assert line["arguments"] is None
    assert line["duration_ms"] >= 0


async def test_a_connection_tells_which_process_reached_what(
    admin: Person, member: Person, server: str, db: Database
) -> None:
    await connect(db, server, tool_count=3)
    await connect(db, server, outcome="timeout", error_code="timeout", user_id=member.user.id)
    failed, made = await lines(admin, kind="connection")
    assert (made["server"], made["process"], made["duration_ms"]) == ("demo", "worker-1", 12)
    assert (made["action"], made["outcome"], made["tool_count"]) == ("connect", "connected", 3)
    assert (failed["outcome"], failed["error_code"]) == ("timeout", "timeout")
    assert (made["user_id"], failed["user_id"]) == (None, str(member.user.id))


async def test_each_filter_keeps_what_it_names(
    admin: Person, member: Person, server: str, db: Database
) -> None:
    chat = await call(db, member, server, "{}")
    await connect(db, server, user_id=member.user.id)
    await connect(db, server, outcome="disconnected")

    async def kinds(**filters: str) -> list[str]:
        return [line["kind"] for line in await lines(admin, **filters)]

    assert await kinds(server=server) == ["connection", "connection", "call", "change"]
    assert await kinds(user=str(member.user.id)) == ["connection", "call"]
    assert await kinds(actor=str(member.user.id)) == ["call"]
    assert await kinds(chat=chat) == ["call"]
    assert await kinds(tool="add") == await kinds(tool="demo__add") == ["call"]
    assert await kinds(outcome="done") == ["call"]
    assert await kinds(action="disconnect") == ["connection"]
    assert await kinds(action="call") == ["call"]
    assert await kinds(target_type="mcp_server", action="create") == ["change"]
    assert await kinds(target_type="mcp_server", target_id="x") == []
    assert await kinds(to="2000-01-01T00:00:00Z") == []
    (target,) = [line["target"]["id"] for line in await lines(admin, kind="call")]
    assert await kinds(target_type="tool_call", target_id=target) == ["call"]
    newest = (await lines(admin))[0]["at"]
    assert await kinds(**{"from": newest}) == ["connection"]


async def test_what_is_about_a_user_is_found_however_it_names_them(
    app: FastAPI, admin: Person, member: Person, model: str, db: Database
) -> None:
    someone = await enter(app, db, "zoe", "member")
    user = str(member.user.id)
    group = (await admin.post("/groups", {"name": "crew"})).json()["id"]
    for person in (member, someone):
        await admin.put(f"/groups/{group}/members/{person.user.id}", None)
    await admin.delete(f"/groups/{group}/members/{someone.user.id}")
    await admin.delete(f"/groups/{group}")
    token = (await admin.post(f"/users/{user}/tokens", {"name": "laptop"})).json()["id"]
    await admin.delete(f"/users/{user}/tokens/{token}")
    await admin.post(f"/users/{someone.user.id}/tokens", {"name": "laptop"})
    await chat_of(member)
    (turn,) = await db.fetch("SELECT id FROM turns")
    assert (await admin.post(f"/turns/{turn['id']}/cancel", {})).status_code == 200
    await admin.patch(f"/users/{user}", {"name": "Max"})
    told = [
        (line["target"]["type"], line["action"], line["user_id"])
        for line in await lines(admin, user=user)
    ]
    assert told == [
        ("user", "update", user),
        ("turn", "cancel", user),
        ("api_token", "revoke", user),
        ("api_token", "create", user),
        ("group", "delete", None),
        ("group", "add_member", user),
    ]


async def test_pages_follow_each_other_to_the_end(admin: Person, server: str) -> None:
    whole = await lines(admin)
    seen: list[Any] = []
    page = (await admin.get("/audit", params={"limit": "1"})).json()
    while page["next"] is not None:
        seen += page["lines"]
        page = (await admin.get("/audit", params={"limit": 1, "before": page["next"]})).json()
    assert seen + page["lines"] == whole


# --- what it never tells


@pytest.mark.parametrize("shown", ["hash", "redacted"])
async def test_no_secret_is_in_any_answer(
    admin: Person, member: Person, model: str, db: Database, shown: str
) -> None:
    assert (
        await admin.put("/chats/config/audit", SETTINGS | {"arguments": shown})
    ).status_code == 200
    server = await add(
        admin,
        "vault",
        "http://127.0.0.1:9/mcp",
        auth_type="api_key",
        api_key_header="X-Key",
        api_key_value=CANARY,
    )
    changed = {"api_key_value": CANARY + "2", "description": f"password={CANARY}"}
    assert (await admin.patch(f"/mcp/servers/{server}", changed)).status_code == 200
    nested = {"user": "ada", "login": {"password": CANARY, "api_key": [CANARY]}, "pin": 4}
    for arguments in (
        orjson.dumps(nested).decode(),
        f'{{"password": "{CANARY}"',
        orjson.dumps({"a": "x" * 9000, "password": CANARY}).decode(),
        orjson.dumps({"a": "x" * 2040, "password": CANARY}).decode(),
    ):
        await call(db, member, server, arguments)
    texts = [(await admin.get(path)).text for path in ("/audit", "/audit/export")]
    assert [CANARY in text for text in texts] == [False, False]
    told = [line["arguments"] for line in await lines(admin, kind="call")]
    if shown == "hash":
        assert told == [None] * 4
    else:
        cut, too_long, no_json, whole = told
        assert (too_long, no_json) == (None, None)
        assert len(cut.encode()) <= 2048
        login = {"password": "[redacted]", "api_key": "[redacted]"}
        assert orjson.loads(whole) == {"user": "ada", "login": login, "pin": 4}


async def test_no_words_of_a_chat_are_in_any_line(
    admin: Person, member: Person, server: str, db: Database
) -> None:
    await call(db, member, server, '{"a": "the plan"}')
    text = (await admin.get("/audit/export")).text
    assert "the plan" not in text
    assert '"result"' not in text


async def test_a_calls_hash_outlives_its_chat(
    admin: Person, member: Person, server: str, db: Database
) -> None:
    chat = await call(db, member, server, '{"a": 1}')
    (before,) = await lines(admin, kind="call")
    assert (await member.delete(f"/chats/{chat}")).status_code == 204
    assert await purging.purge_chats(db, 0) == 1
    left = await db.fetch("SELECT arguments, result FROM tool_calls")
    assert [tuple(row) for row in left] == [(None, None)]
    (after,) = await lines(admin, kind="call", chat=chat)
    assert after == before | {"outcome": after["outcome"], "duration_ms": after["duration_ms"]}


# --- exported


async def test_an_export_is_every_line_and_becomes_one(
    admin: Person, server: str, db: Database
) -> None:
    for _ in range(450):
        await connect(db, server)
    listed = await lines(admin, limit="200")
    export = await admin.get("/audit/export", params={"server": server, "kind": "connection"})
    assert export.headers["content-type"] == "application/x-ndjson"
    assert export.headers["content-disposition"].startswith("attachment")
    told = [orjson.loads(line) for line in export.text.splitlines()]
    assert len({line["id"] for line in told}) == len(told) == 450
    assert told[:200] == listed
    (line,) = await lines(admin, action="export")
    assert line["actor_id"] == str(admin.user.id)
    assert line["after"] == {"server": server, "kind": "connection"}
    assert (await admin.get("/audit/export", params={"tool": "nobody"})).text == ""


# --- wired


async def test_a_connection_that_the_front_door_makes_becomes_a_line(
    admin: Person, model: str, demo_server: Served
) -> None:
    server = await add(admin, "demo", demo_server.url)
    chat = await chat_of(admin)
    assert (await admin.get(f"/chats/{chat}/tools")).status_code == 200

    async def told() -> list[Any]:
        return [line["outcome"] for line in await lines(admin, kind="connection", server=server)]

    assert await until(told) == ["connected"]
