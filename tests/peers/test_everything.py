"""MCP's own reference server as an external server of a turn, over both of its transports."""

from typing import Any
from uuid import uuid4

import orjson
import pytest

from tests.e2e.client import Client, call
from tests.e2e.fleet import Process, server
from tests.e2e.view import text_of
from tests.peers.programs import Peer


@pytest.fixture
async def registered(everything: Peer, admin: Client) -> Any:
    """The server's config, fresh for every test: nothing of it is known yet."""
    slug = f"ev-{uuid4().hex[:6]}"
    config = server(slug, everything.url, transport=everything.kind, tool_timeout_seconds=1)
    return await admin.post("/mcp/servers", config)


async def test_its_tools_are_listed(worker: Process, member: Client, registered: Any) -> None:
    turn, messages = await member.run("/tools", mcp_server_ids=[registered["id"]])
    assert turn["notices"] == []
    names = {name.removeprefix(f"{registered['slug']}__") for name in _json(messages)}
    assert names >= {"echo", "get-sum", "get-tiny-image", "trigger-long-running-operation"}
    assert all(name.startswith(registered["slug"]) for name in _json(messages))


async def test_its_tools_can_be_called(worker: Process, member: Client, registered: Any) -> None:
    line = call(f"{registered['slug']}__get-sum", a=40, b=2)
    turn, messages = await member.run(line, "/echo", mcp_server_ids=[registered["id"]])
    assert turn["status"] == "completed"
    assert not messages[2]["content"][0]["is_error"]
    assert "42" in text_of(messages[-1])


async def test_its_picture_arrives(worker: Process, member: Client, registered: Any) -> None:
    line = call(f"{registered['slug']}__get-tiny-image")
    _, messages = await member.run(line, mcp_server_ids=[registered["id"]])
    part = messages[2]["content"][0]
    assert [media["media_type"] for media in part["media"]] == ["image/png"]
    assert "image" in part["result"]


async def test_its_progress_keeps_a_long_call_alive(
    worker: Process, member: Client, registered: Any
) -> None:
    """It takes twice as long as a silent call may."""
    name = f"{registered['slug']}__trigger-long-running-operation"
    _, messages = await member.run(
        call(name, duration=2, steps=8), "/echo", mcp_server_ids=[registered["id"]]
    )
    assert not messages[2]["content"][0]["is_error"]
    assert "Long running operation completed" in text_of(messages[-1])


async def test_arguments_it_refuses_come_back_as_an_error(
    worker: Process, member: Client, registered: Any
) -> None:
    line = call(f"{registered['slug']}__get-sum", a="forty", b=2)
    turn, messages = await member.run(line, "/say I see", mcp_server_ids=[registered["id"]])
    assert turn["status"] == "completed"
    assert messages[2]["content"][0]["is_error"]


def _json(messages: list[Any]) -> list[str]:
    return orjson.loads(text_of(messages[-1]))
