"""MCP's own reference server as an external server of a turn, over both of its transports."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.e2e.client import Client, call
from tests.e2e.fleet import Process, registered
from tests.e2e.view import offered, text_of
from tests.peers.programs import Peer

SLUG = "everything"


@pytest.fixture
async def only(everything: Peer, admin: Client) -> AsyncGenerator[dict[str, Any]]:
    """What makes a message use this server; its config is new, so nothing is known of it."""
    fields = {"transport": everything.kind, "tool_timeout_seconds": 1}
    async with registered(admin, SLUG, everything.url, **fields) as made:
        yield {"mcp_server_ids": [made["id"]]}


async def test_its_tools_are_listed(worker: Process, member: Client, only: dict[str, Any]) -> None:
    turn, messages = await member.run("/tools", **only)
    assert turn["notices"] == []
    names = {name.removeprefix(f"{SLUG}__") for name in offered(messages[-1])}
    assert names >= {"echo", "get-sum", "get-tiny-image", "trigger-long-running-operation"}
    assert all(name.startswith(SLUG) for name in offered(messages[-1]))


async def test_its_tools_can_be_called(
    worker: Process, member: Client, only: dict[str, Any]
) -> None:
    line = call(f"{SLUG}__get-sum", a=40, b=2)
    turn, messages = await member.run(line, "/echo", **only)
    assert turn["status"] == "completed"
    assert not messages[2]["content"][0]["is_error"]
    assert "42" in text_of(messages[-1])


async def test_its_picture_arrives(worker: Process, member: Client, only: dict[str, Any]) -> None:
    line = call(f"{SLUG}__get-tiny-image")
    _, messages = await member.run(line, **only)
    part = messages[2]["content"][0]
    assert [media["media_type"] for media in part["media"]] == ["image/png"]
    assert "image" in part["result"]


async def test_its_progress_keeps_a_long_call_alive(
    worker: Process, member: Client, only: dict[str, Any]
) -> None:
    """It takes twice as long as a silent call may."""
    name = f"{SLUG}__trigger-long-running-operation"
    _, messages = await member.run(call(name, duration=2, steps=8), "/echo", **only)
    assert not messages[2]["content"][0]["is_error"]
    assert "Long running operation completed" in text_of(messages[-1])


async def test_arguments_it_refuses_come_back_as_an_error(
    worker: Process, member: Client, only: dict[str, Any]
) -> None:
    line = call(f"{SLUG}__get-sum", a="forty", b=2)
    turn, messages = await member.run(line, "/say I see", **only)
    assert turn["status"] == "completed"
    assert messages[2]["content"][0]["is_error"]
