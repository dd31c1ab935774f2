"""What administrators decide about tools, seen from a turn."""

from typing import Any

import httpx2
import pytest

from chatd.store.db import Database
from tests.e2e.client import Client, call
from tests.e2e.fleet import Fleet, Process, registered
from tests.e2e.journal import appended, journaled
from tests.e2e.view import offered, text_of
from tests.waiting import until


async def test_a_plan_turn_sees_only_servers_that_are_allowed_in_it(
    worker: Process, fleet: Fleet, admin: Client, member: Client
) -> None:
    async with (
        registered(admin, "planner", fleet.demo_url, allow_in_plan_mode=True) as planner,
        registered(admin, "executor", fleet.demo_url) as executor,
    ):
        chosen = {"mcp_server_ids": [planner["id"], executor["id"]]}
        _, messages = await member.run("/tools", plan_mode="plan", **chosen)
        assert _servers(messages) == {"planner"}
        _, messages = await member.run("/tools", **chosen)
        assert _servers(messages) == {"planner", "executor"}
        line = call("executor__echo", text="x")
        _, messages = await member.run(line, plan_mode="plan", **chosen)
        assert text_of(messages[-1]) == "tool not offered: executor__echo"


async def test_deny_always_wins_and_an_allow_list_restricts(
    worker: Process, fleet: Fleet, admin: Client, member: Client
) -> None:
    lists = {"tool_allow_list": ["echo"], "tool_deny_list": ["append"]}
    async with registered(admin, "strict", fleet.demo_url, **lists) as strict:
        only = {"mcp_server_ids": [strict["id"]]}
        _, messages = await member.run("/tools", **only)
        assert _offered(messages) == ["strict__echo"]
        _, messages = await member.run(call("strict__append", text="never"), **only)
        assert text_of(messages[-1]) == "tool not offered: strict__append"


@pytest.mark.parametrize(
    ("slug", "change", "told"),
    [
        ("revoked", {"enabled": False}, "An administrator has disabled this server."),
        ("narrowed", {"tool_deny_list": ["append"]}, "An administrator has denied this tool."),
    ],
)
async def test_what_is_forbidden_in_the_middle_of_a_turn_is_not_called_any_more(
    worker: Process,
    fleet: Fleet,
    model: httpx2.AsyncClient,
    admin: Client,
    member: Client,
    db: Database,
    slug: str,
    change: dict[str, Any],
    told: str,
) -> None:
    """The model was offered the tool and is about to call it."""
    async with registered(admin, slug, fleet.demo_url) as ledger:
        line = call(f"{slug}__append", text=slug)
        posted = await member.create("/hang 1", line, "/echo", mcp_server_ids=[ledger["id"]])
        await _is_asked(model)
        await admin.patch(f"/mcp/servers/{ledger['id']}", change)
        assert (await member.ended(posted))["status"] == "completed"
    _, _, result, answer = await member.messages(posted)
    assert text_of(answer) == text_of(result) == told
    assert [row["state"] for row in await journaled(db, posted)] == ["denied"]
    assert appended(fleet, slug) == 0


async def test_a_server_taken_out_of_plan_mode_is_neither_called_nor_offered_any_more(
    worker: Process,
    fleet: Fleet,
    model: httpx2.AsyncClient,
    admin: Client,
    member: Client,
    db: Database,
) -> None:
    """While a plan turn runs, between the model's being asked and its call."""
    async with registered(admin, "scout", fleet.demo_url, allow_in_plan_mode=True) as scout:
        lines = ("/hang 1", call("scout__append", text="scout"), "/tools")
        posted = await member.create(*lines, plan_mode="plan", mcp_server_ids=[scout["id"]])
        await _is_asked(model)
        await admin.patch(f"/mcp/servers/{scout['id']}", {"allow_in_plan_mode": False})
        assert (await member.ended(posted))["status"] == "completed"
    _, _, result, answer = await member.messages(posted)
    assert text_of(result) == "This server may not be used while planning."
    assert [row["state"] for row in await journaled(db, posted)] == ["denied"]
    assert _offered([answer]) == []
    assert appended(fleet, "scout") == 0


async def test_a_server_let_into_plan_mode_is_offered_at_the_next_step(
    worker: Process, fleet: Fleet, model: httpx2.AsyncClient, admin: Client, member: Client
) -> None:
    async with registered(admin, "late", fleet.demo_url) as late:
        lines = ("/hang 1", call("list_agents"), "/tools")
        posted = await member.create(*lines, plan_mode="plan", mcp_server_ids=[late["id"]])
        await _is_asked(model)
        await admin.patch(f"/mcp/servers/{late['id']}", {"allow_in_plan_mode": True})
        assert (await member.ended(posted))["status"] == "completed"
        assert _servers(await member.messages(posted)) == {"late"}


async def test_a_server_that_is_forced_on_cannot_be_left_out(
    worker: Process, fleet: Fleet, admin: Client, member: Client
) -> None:
    async with registered(admin, "forced", fleet.demo_url, availability="force_on"):
        _, messages = await member.run("/tools", mcp_server_ids=[])
        assert _servers(messages) == {"forced"}
    _, messages = await member.run("/tools", mcp_server_ids=[])
    assert _offered(messages) == []


async def _is_asked(model: httpx2.AsyncClient) -> None:
    async def asked() -> bool:
        return bool((await model.get("/requests")).json())

    await until(asked)


def _offered(messages: list[Any]) -> list[str]:
    return offered(messages[-1])


def _servers(messages: list[Any]) -> set[str]:
    return {name.partition("__")[0] for name in _offered(messages)}
