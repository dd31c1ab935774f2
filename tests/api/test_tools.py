"""What `GET /chats/{chat}/tools` says, with a real MCP server and one that is not there."""

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from chatd.dev.served import Served
from chatd.dev.stack import start_demo_mcp
from tests.api.conftest import Person, text


@pytest.fixture(scope="module")
def demo(services_folder: Path) -> Generator[Served]:
    served = asyncio.run(start_demo_mcp(services_folder / "api-demo"))
    yield served
    asyncio.run(served.stop())


async def add(admin: Person, slug: str, url: str, **fields: Any) -> str:
    body = {
        "display_name": slug,
        "slug": slug,
        "transport": "streamable_http",
        "url": url,
        "auth_type": "none",
        "availability": "default_on",
        "enabled": True,
    }
    answer = await admin.post("/mcp/servers", body | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def chat_of(person: Person, **fields: Any) -> str:
    answer = await person.post("/chats", {"content": text("hi")} | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def tools_of(person: Person, chat: str, query: str = "") -> Any:
    answer = await person.get(f"/chats/{chat}/tools{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def names(answer: Any) -> list[str]:
    """Of the servers' tools."""
    return [tool["name"] for tool in answer["tools"] if tool["kind"] == "mcp"]


def reasons(answer: Any) -> dict[str, str]:
    return {drop["name"]: drop["reason"] for drop in answer["dropped"]}


async def test_tools_and_the_reasons_for_those_that_are_not_there(
    admin: Person, model: str, demo: Served
) -> None:
    server = await add(admin, "demo", demo.url, tool_allow_list=["add"], tool_deny_list=["echo"])
    await add(admin, "gone", "http://127.0.0.1:9/mcp")
    await add(admin, "extra", demo.url, availability="default_off")
    answer = await tools_of(admin, await chat_of(admin))
    assert answer["plan_mode"] is False
    (tool,) = [tool for tool in answer["tools"] if tool["kind"] == "mcp"]
    assert (tool["name"], tool["original_name"], tool["server"]) == ("demo__add", "add", "demo")
    assert tool["server_id"] == server
    assert tool["description"]
    why = reasons(answer)
    assert (why["gone"], why["extra"]) == ("unreachable", "not_selected")
    assert (why["echo"], why["slow"]) == ("denied", "not_in_allow_list")
    assert {drop["kind"] for drop in answer["dropped"]} == {"server", "tool"}
    assert all(drop["message"] for drop in answer["dropped"])


async def test_plan_mode_is_the_chats_own_or_as_asked(
    admin: Person, model: str, demo: Served
) -> None:
    await add(admin, "free", demo.url, allow_in_plan_mode=True, tool_allow_list=["add"])
    await add(admin, "never", demo.url, tool_allow_list=["add"])
    chat = await chat_of(admin, plan_mode="plan")
    planning = await tools_of(admin, chat)
    assert (planning["plan_mode"], names(planning)) == (True, ["free__add"])
    assert reasons(planning)["never"] == "not_in_plan_mode"
    assert names(await tools_of(admin, chat, "?plan_mode=")) == ["free__add", "never__add"]
    other = await chat_of(admin)
    assert names(await tools_of(admin, other)) == ["free__add", "never__add"]
    assert names(await tools_of(admin, other, "?plan_mode=plan")) == ["free__add"]
    refused = await admin.get(f"/chats/{other}/tools?plan_mode=maybe")
    assert (refused.status_code, refused.json()["message"]) == (400, "Invalid plan_mode value.")


async def test_a_member_sees_nothing_of_a_disabled_server(
    admin: Person, member: Person, model: str, demo: Served
) -> None:
    server = await add(admin, "secret", demo.url)
    mine, theirs = await chat_of(admin), await chat_of(member)
    await admin.patch(f"/mcp/servers/{server}", {"enabled": False})
    assert reasons(await tools_of(admin, mine))["secret"] == "disabled"
    seen = await tools_of(member, theirs)
    assert (names(seen), [drop for drop in seen["dropped"] if drop["server_id"]]) == ([], [])
    chat = (await member.get(f"/chats/{theirs}")).json()
    assert chat["mcp_server_ids"] == [server]


async def test_forced_servers_are_there_whatever_the_chat_selects(
    admin: Person, member: Person, model: str, demo: Served
) -> None:
    await add(admin, "forced", demo.url, availability="force_on", tool_allow_list=["add"])
    assert names(await tools_of(member, await chat_of(member, mcp_server_ids=[]))) == [
        "forced__add"
    ]


async def test_our_own_tools_come_first_and_the_clients_last(
    admin: Person, model: str, demo: Served
) -> None:
    await add(
        admin,
        "demo",
        demo.url,
        tool_allow_list=["add", "echo"],
        require_approval="always",
        tool_settings={"echo": {"require_approval": "never"}},
    )
    pick = {"name": "pick", "description": "", "input_schema": {"type": "object"}}
    chat = await chat_of(admin, unsafe_dynamic_tools=[pick])
    tools = (await tools_of(admin, chat))["tools"]
    kinds = [tool["kind"] for tool in tools]
    assert kinds == sorted(kinds, key=["builtin", "mcp", "dynamic"].index)
    asked = {tool["name"]: tool["requires_approval"] for tool in tools if tool["kind"] == "mcp"}
    assert asked == {"demo__add": True, "demo__echo": False}
    planning = await tools_of(admin, chat, "?plan_mode=plan")
    assert "dynamic" not in {tool["kind"] for tool in planning["tools"]}
