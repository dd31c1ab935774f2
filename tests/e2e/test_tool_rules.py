"""What administrators decide about tools, seen from a turn."""

from typing import Any

import httpx2
import orjson

from chatd.store.db import Database
from tests.e2e.client import Client, call
from tests.e2e.fleet import Fleet, Process, server
from tests.e2e.journal import journaled
from tests.e2e.view import text_of
from tests.waiting import until


async def test_a_plan_turn_sees_only_servers_that_are_allowed_in_it(
    worker: Process, fleet: Fleet, admin: Client, member: Client
) -> None:
    planner = await _demo(fleet, admin, "planner", allow_in_plan_mode=True)
    executor = await _demo(fleet, admin, "executor")
    chosen = {"mcp_server_ids": [planner["id"], executor["id"]]}
    _, messages = await member.run("/tools", plan_mode="plan", **chosen)
    assert {name.split("__")[0] for name in _offered(messages)} == {"planner"}
    _, messages = await member.run("/tools", **chosen)
    assert {name.split("__")[0] for name in _offered(messages)} == {"planner", "executor"}
    _, messages = await member.run(call("executor__echo", text="x"), plan_mode="plan", **chosen)
    assert text_of(messages[-1]) == "tool not offered: executor__echo"


async def test_deny_always_wins_and_an_allow_list_restricts(
    worker: Process, fleet: Fleet, admin: Client, member: Client
) -> None:
    lists = {"tool_allow_list": ["echo", "append"], "tool_deny_list": ["append"]}
    strict = await _demo(fleet, admin, "strict", **lists)
    only = {"mcp_server_ids": [strict["id"]]}
    _, messages = await member.run("/tools", **only)
    assert _offered(messages) == ["strict__echo"]
    _, messages = await member.run(call("strict__append", text="never"), **only)
    assert text_of(messages[-1]) == "tool not offered: strict__append"


async def test_a_server_that_is_disabled_in_the_middle_of_a_turn_is_not_called_any_more(
    worker: Process, fleet: Fleet, admin: Client, member: Client, db: Database
) -> None:
    """The model was offered the tool and is about to call it."""
    ledger = await _demo(fleet, admin, "revoked")
    only = {"mcp_server_ids": [ledger["id"]]}
    line = call("revoked__append", text="too late")
    posted = await member.create("/hang 1", line, "/echo", **only)
    await _model_is_asked(fleet, tools=8)
    await admin.patch(f"/mcp/servers/{ledger['id']}", {"enabled": False})
    turn = await member.ended(posted)
    assert turn["status"] == "completed"
    _, _, result, answer = await member.messages(posted)
    assert text_of(answer) == text_of(result) == "An administrator has disabled this server."
    assert [row["state"] for row in await journaled(db, posted)] == ["denied"]


async def test_a_tool_that_is_denied_in_the_middle_of_a_turn_is_not_called_any_more(
    worker: Process, fleet: Fleet, admin: Client, member: Client, db: Database
) -> None:
    ledger = await _demo(fleet, admin, "narrowed")
    only = {"mcp_server_ids": [ledger["id"]]}
    posted = await member.create("/hang 1", call("narrowed__append", text="no"), "/echo", **only)
    await _model_is_asked(fleet, tools=8)
    await admin.patch(f"/mcp/servers/{ledger['id']}", {"tool_deny_list": ["append"]})
    await member.ended(posted)
    assert text_of((await member.messages(posted))[-1]) == "An administrator has denied this tool."
    assert [row["state"] for row in await journaled(db, posted)] == ["denied"]


async def test_a_server_that_is_forced_on_cannot_be_left_out(
    worker: Process, fleet: Fleet, admin: Client, member: Client
) -> None:
    forced = await _demo(fleet, admin, "forced", availability="force_on")
    _, messages = await member.run("/tools", mcp_server_ids=[])
    assert {name.split("__")[0] for name in _offered(messages)} == {"forced"}
    await admin.patch(f"/mcp/servers/{forced['id']}", {"enabled": False})
    _, messages = await member.run("/tools", mcp_server_ids=[])
    assert _offered(messages) == []


async def _demo(fleet: Fleet, admin: Client, slug: str, **fields: Any) -> Any:
    """The demo server once more, under rules of its own."""
    assert fleet.stack.demo_mcp is not None
    return await admin.post("/mcp/servers", server(slug, fleet.stack.demo_mcp.url, **fields))


async def _model_is_asked(fleet: Fleet, *, tools: int) -> None:
    """Returns when the last request the model got offers so many tools."""
    assert fleet.stack.model is not None
    base = fleet.stack.model.url.removesuffix("/v1")
    async with httpx2.AsyncClient(base_url=base, trust_env=False, verify=False) as http:

        async def asked() -> bool:
            requests = (await http.get("/requests")).json()
            return bool(requests) and requests[-1]["tools"] == tools

        await http.delete("/requests")
        await until(asked)


def _offered(messages: list[Any]) -> list[str]:
    return orjson.loads(text_of(messages[-1]))
