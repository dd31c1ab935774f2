"""Administrators look at a server: as a user, over the wire, and by one call of a tool."""

import hashlib
from typing import Any
from uuid import UUID, uuid4

import pytest

from chatd.dev.served import Served
from chatd.store.db import Database
from tests.api.conftest import Person
from tests.api.test_tools import add, chat_of, demo, reasons, tools_of
from tests.mcp.peer import OK, Peer, result, running
from tests.outbound.raw_server import Exchange

__all__ = ["demo"]

NOBODY = str(uuid4())

GROUP = """
WITH made AS (INSERT INTO groups (id, name, description)
        VALUES (gen_random_uuid(), 'ops', '') RETURNING id),
    restricted AS (UPDATE mcp_server_configs SET access = 'groups', version = version + 1
        WHERE id = $1)
INSERT INTO mcp_server_groups (server_id, group_id) SELECT $1, id FROM made RETURNING group_id
"""
JOIN = "INSERT INTO group_members (group_id, user_id) VALUES ($1, $2)"


class Group:
    """Restricts a server to a group, and lets people join that group."""

    id: UUID

    def __init__(self, db: Database) -> None:
        self._db = db

    async def restrict(self, server: str) -> None:
        row = await self._db.fetch_one(GROUP, server)
        assert row is not None
        self.id = row["group_id"]

    async def join(self, person: Person) -> None:
        await self._db.fetch(JOIN, self.id, person.user.id)


@pytest.fixture
def group(db: Database) -> Group:
    return Group(db)


async def preview(admin: Person, server: str, user: Person, **situation: Any) -> Any:
    body = {"user_id": str(user.user.id)} | situation
    answer = await admin.post(f"/mcp/servers/{server}/preview", body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def rules(answer: Any) -> dict[str, tuple[str, str]]:
    return {drop["name"]: (drop["reason"], drop["rule"]) for drop in answer["dropped"]}


async def trial(admin: Person, server: str, body: Any = None) -> Any:
    answer = await admin.post(f"/mcp/servers/{server}/test", body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def entries(db: Database, action: str) -> list[Any]:
    rows = await db.fetch("SELECT * FROM audit_log WHERE action = $1 ORDER BY id", action)
    return list(rows)


async def test_a_preview_names_the_rule_that_decided_about_each_tool(
    admin: Person, member: Person, demo: Served
) -> None:
    server = await add(
        admin,
        "demo",
        demo.url,
        allow_in_plan_mode=True,
        tool_allow_list=["add", "slow"],
        tool_deny_list=["echo"],
        tool_settings={"slow": {"plan_mode": "deny"}},
    )
    seen = await preview(admin, server, member, plan_mode=True)
    assert seen["server"] == {"kept": True, "reason": None, "rule": "mcp_server_ids"}
    assert [tool["name"] for tool in seen["kept"]] == ["demo__add"]
    found = rules(seen)
    assert found["echo"] == ("denied", "tool_deny_list")
    assert found["append"] == ("not_in_allow_list", "tool_allow_list")
    assert found["slow"] == ("tool_not_in_plan_mode", "tool_settings.slow.plan_mode")
    acting = await preview(admin, server, member)
    assert [tool["name"] for tool in acting["kept"]] == ["demo__add", "demo__slow"]


@pytest.mark.parametrize(
    ("fields", "situation", "reason", "rule"),
    [
        ({"availability": "default_off"}, {"selected": False}, "not_selected", "default_off"),
        ({"enabled": False}, {}, "disabled", "enabled"),
        ({}, {"plan_mode": True}, "not_in_plan_mode", "allow_in_plan_mode"),
        ({"allow_in_plan_mode": True}, {"plan_mode": True, "is_child": True}, "plan_sub_agent", ""),
        ({"url": "http://127.0.0.1:9/mcp"}, {}, "unreachable", "tools/list"),
    ],
)
async def test_a_preview_says_why_a_whole_server_is_not_there(
    admin: Person,
    member: Person,
    demo: Served,
    fields: dict[str, Any],
    situation: dict[str, Any],
    reason: str,
    rule: str,
) -> None:
    server = await add(admin, "demo", **({"url": demo.url} | fields))
    seen = await preview(admin, server, member, **situation)
    assert (seen["kept"], seen["server"]["kept"], seen["server"]["reason"]) == ([], False, reason)
    assert rule in seen["server"]["rule"]
    assert [drop["kind"] for drop in seen["dropped"]] == ["server"]


async def test_a_forced_server_is_there_though_nobody_selected_it(
    admin: Person, member: Person, demo: Served
) -> None:
    server = await add(admin, "demo", demo.url, availability="force_on")
    seen = await preview(admin, server, member, selected=False)
    assert seen["server"]["rule"] == "availability: force_on"


async def test_a_preview_goes_by_the_users_groups_not_the_administrators(
    admin: Person, member: Person, demo: Served, group: Group
) -> None:
    server = await add(admin, "demo", demo.url)
    await group.restrict(server)
    await group.join(admin)
    refused = await preview(admin, server, member)
    assert refused["server"] == {"kept": False, "reason": "not_in_group", "rule": "access: groups"}
    await group.join(member)
    assert (await preview(admin, server, member))["server"]["kept"] is True


async def test_previews_of_what_is_not_there_are_refused(
    admin: Person, member: Person, demo: Served
) -> None:
    server = await add(admin, "demo", demo.url)
    refused = await admin.post(f"/mcp/servers/{server}/preview", {"user_id": NOBODY})
    assert refused.status_code == 400
    assert [problem["field"] for problem in refused.json()["validations"]] == ["user_id"]
    me = {"user_id": str(admin.user.id)}
    assert (await admin.post(f"/mcp/servers/{NOBODY}/preview", me)).status_code == 404
    for path in ("preview", "test", "tools/add/call"):
        assert (await member.post(f"/mcp/servers/{server}/{path}", me)).status_code == 403


async def test_members_see_neither_rules_nor_servers_of_other_groups(
    admin: Person, member: Person, model: str, demo: Served, group: Group
) -> None:
    server = await add(admin, "demo", demo.url, tool_deny_list=["echo"])
    mine, theirs = await chat_of(admin), await chat_of(member)
    assert rules(await tools_of(admin, mine))["echo"] == ("denied", "tool_deny_list")
    seen = await tools_of(member, theirs)
    assert reasons(seen)["echo"] == "denied"
    assert all("rule" not in drop for drop in seen["dropped"])
    await group.restrict(server)
    hidden = await tools_of(member, theirs)
    assert [drop for drop in hidden["dropped"] if drop["server_id"]] == []
    assert "mcp" not in {tool["kind"] for tool in hidden["tools"]}
    assert rules(await tools_of(admin, mine))["demo"] == ("not_in_group", "access: groups")
    await group.join(member)
    assert reasons(await tools_of(member, theirs))["echo"] == "denied"


async def test_a_trial_tells_what_answers_at_the_address(admin: Person, demo: Served) -> None:
    server = await add(admin, "demo", demo.url)
    found = await trial(admin, server)
    assert (found["ok"], found["error"]) == (True, None)
    assert found["tool_count"] == len(found["tools"]) > 1
    assert "add" in found["tools"]
    assert found["protocol_version"]
    assert found["server_info"]["name"]
    assert found["duration_ms"] >= 0


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"url": "http://127.0.0.1:9/mcp"}, "unreachable"),
        ({"url": "http://10.1.2.3/mcp"}, "refused_address"),
    ],
)
async def test_a_trial_that_fails_says_how_and_nothing_secret(
    admin: Person, fields: dict[str, Any], code: str
) -> None:
    secret = "canary-4711"
    auth = {"auth_type": "api_key", "api_key_header": "X-Key", "api_key_value": secret}
    server = await add(admin, "gone", **(fields | auth))
    for _ in range(2):
        answer = await admin.post(f"/mcp/servers/{server}/test", {})
        found = answer.json()
        assert (found["ok"], found["error"]["code"], found["tools"]) == (False, code, [])
        assert secret not in answer.text


async def test_a_trial_passes_by_the_breaker_that_keeps_turns_away(
    admin: Person, model: str, demo: Served
) -> None:
    server = await add(admin, "demo", "http://127.0.0.1:9/mcp")
    assert reasons(await tools_of(admin, await chat_of(admin)))["demo"] == "unreachable"
    await admin.patch(f"/mcp/servers/{server}", {"url": demo.url})
    assert (await trial(admin, server))["ok"] is True


async def test_servers_that_want_each_users_account_answer_auth_required(
    admin: Person, db: Database, demo: Served
) -> None:
    server = await add(admin, "demo", demo.url)
    await db.fetch(
        "UPDATE mcp_server_configs SET auth_type = 'user_oidc', version = version + 1"
        " WHERE id = $1",
        server,
    )
    assert (await trial(admin, server))["error"]["code"] == "auth_required"
    refused = await admin.post(f"/mcp/servers/{server}/tools/add/call", {"arguments": {}})
    assert (refused.status_code, refused.json()["reason"]) == (409, "auth_required")


async def test_a_trial_call_answers_and_is_audited_without_its_arguments(
    admin: Person, db: Database, demo: Served
) -> None:
    server = await add(admin, "demo", demo.url)
    answer = await admin.post(
        f"/mcp/servers/{server}/tools/add/call", {"arguments": {"b": 2, "a": 40}}
    )
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["text"], said["is_error"], said["outcome"], said["cut"]) == (
        "42",
        False,
        "done",
        False,
    )
    sent, entry = await entries(db, "trial_call")
    assert (entry["target_type"], entry["target_id"]) == ("mcp_server", server)
    assert entry["after"]["duration_ms"] >= 0
    hashed = hashlib.sha256(b'{"a":40,"b":2}').hexdigest()
    call = {"tool": "add", "arguments_sha256": hashed}
    assert sent["after"] == call | {"outcome": "sent"}
    assert entry["after"] | {"duration_ms": 0} == call | {"outcome": "done", "duration_ms": 0}


async def test_who_previews_or_tests_as_whom_is_audited(
    admin: Person, member: Person, db: Database, demo: Served
) -> None:
    server = await add(admin, "demo", demo.url)
    await preview(admin, server, member, plan_mode=True)
    await trial(admin, server, {"user_id": str(member.user.id)})
    (seen,) = await entries(db, "preview")
    sent, tried = await entries(db, "test")
    whom = {"user_id": str(member.user.id)}
    assert seen["after"] == whom | {"plan_mode": True, "is_child": False, "selected": True}
    assert sent["after"] == whom | {"outcome": "sent"}
    took = tried["after"]["duration_ms"]
    assert tried["after"] == whom | {"outcome": "connected", "duration_ms": took}
    for entry in (seen, sent, tried):
        told = (entry["actor_id"], entry["target_type"], entry["target_id"])
        assert told == (admin.user.id, "mcp_server", server)


async def test_a_test_that_fails_is_audited_with_its_error(admin: Person, db: Database) -> None:
    server = await add(admin, "gone", "http://127.0.0.1:9/mcp")
    await trial(admin, server)
    _, tried = await entries(db, "test")
    assert tried["after"]["outcome"] == "unreachable"


async def test_a_trial_call_is_audited_before_it_leaves(admin: Person, db: Database) -> None:
    noted: list[str] = []

    async def look(exchange: Exchange, message: dict[str, Any]) -> None:
        noted.extend(entry["after"]["outcome"] for entry in await entries(db, "trial_call"))
        await result(exchange, message, OK)

    async with running(Peer()) as peer:
        peer.says["tools/call"] = look
        server = await add(admin, "peer", peer.url)
        answer = await admin.post(f"/mcp/servers/{server}/tools/add/call", {"arguments": {}})
    assert (answer.json()["outcome"], noted) == ("done", ["sent"])


async def test_what_no_turn_may_call_no_administrator_tries(
    admin: Person, db: Database, demo: Served, group: Group
) -> None:
    server = await add(admin, "demo", demo.url, tool_deny_list=["echo"])
    await group.restrict(server)
    calls = f"/mcp/servers/{server}/tools"
    denied = await admin.post(f"{calls}/echo/call", {"arguments": {"text": "x"}})
    assert (denied.status_code, denied.json()["reason"]) == (409, "denied")
    allowed = await admin.post(f"{calls}/add/call", {"arguments": {"a": 1, "b": 2}})
    assert allowed.json()["text"] == "3"
    await admin.patch(f"/mcp/servers/{server}", {"enabled": False})
    disabled = await admin.post(f"{calls}/add/call", {"arguments": {"a": 1, "b": 2}})
    assert (disabled.status_code, disabled.json()["reason"]) == (409, "disabled")
    assert len(await entries(db, "trial_call")) == 2


async def test_a_tool_the_server_does_not_have_is_its_own_error(
    admin: Person, demo: Served
) -> None:
    server = await add(admin, "demo", demo.url)
    answer = await admin.post(f"/mcp/servers/{server}/tools/a%2Fb%20c/call", {"arguments": {}})
    assert answer.status_code == 200, answer.text
    assert answer.json()["is_error"] is True
