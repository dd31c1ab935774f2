"""The demo MCP server, through the SDK's client: the new revision and the older handshake."""

import asyncio
import base64
import struct
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest
from mcp import Client
from mcp_types import CallToolResult, ImageContent, TextContent

from chatd.dev.served import Served

Mode = Literal["auto", "legacy"]

pytestmark = pytest.mark.parametrize("mode", ["auto", "legacy"])


def text_of(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


async def test_both_revisions_are_spoken(demo_mcp: Served, mode: Mode) -> None:
    async with Client(demo_mcp.url, mode=mode) as client:
        expected = {"auto": "2026-07-28", "legacy": "2025-11-25"}
        assert client.protocol_version == expected[mode]


async def test_only_append_is_not_safe(demo_mcp: Served, mode: Mode) -> None:
    async with Client(demo_mcp.url, mode=mode) as client:
        tools = (await client.list_tools()).tools
    safe = {
        tool.name: (tool.annotations.read_only_hint, tool.annotations.idempotent_hint)
        for tool in tools
        if tool.annotations
    }
    others = ("current_time", "echo", "slow", "fail", "big", "picture", "add")
    others += ("ask", "visit", "confirm", "talk")
    assert safe == {**dict.fromkeys(others, (True, True)), "append": (False, False)}
    assert all(tool.description for tool in tools)


async def test_the_tools_do_what_they_say(demo_mcp: Served, mode: Mode) -> None:
    async with Client(demo_mcp.url, mode=mode) as client:
        assert text_of(await client.call_tool("add", {"a": 2, "b": 3})) == "5"
        assert text_of(await client.call_tool("add", {"a": 2, "b": 0.5})) == "2.5"
        assert text_of(await client.call_tool("echo", {"text": "héllo\n"})) == "héllo\n"
        assert len(text_of(await client.call_tool("big", {"n": 100_001}))) == 100_001
        assert text_of(await client.call_tool("big", {"n": 0})) == ""


async def test_the_time_is_told_in_the_zone_asked_for(demo_mcp: Served, mode: Mode) -> None:
    async with Client(demo_mcp.url, mode=mode) as client:
        utc = datetime.fromisoformat(text_of(await client.call_tool("current_time")))
        assert utc.utcoffset() == timedelta(0)
        tokyo = await client.call_tool("current_time", {"timezone": "Asia/Tokyo"})
        assert datetime.fromisoformat(text_of(tokyo)).utcoffset() == timedelta(hours=9)
        unknown = await client.call_tool("current_time", {"timezone": "Mars/Olympus"})
        assert unknown.is_error
        assert "Mars/Olympus" in text_of(unknown)


async def test_a_failing_tool_gives_its_message(demo_mcp: Served, mode: Mode) -> None:
    async with Client(demo_mcp.url, mode=mode) as client:
        failed = await client.call_tool("fail", {"message": "out of paper"})
    assert failed.is_error
    assert text_of(failed).endswith("out of paper")


async def test_a_slow_tool_reports_its_progress(demo_mcp: Served, mode: Mode) -> None:
    reports: list[tuple[float, float | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        reports.append((progress, total))

    async with Client(demo_mcp.url, mode=mode) as client:
        slow = {"seconds": 0.04, "steps": 4}
        assert "0.04" in text_of(await client.call_tool("slow", slow, progress_callback=note))
    assert reports == [(1, 4), (2, 4), (3, 4), (4, 4)]


async def test_the_picture_is_a_png(demo_mcp: Served, mode: Mode) -> None:
    async with Client(demo_mcp.url, mode=mode) as client:
        (content,) = (await client.call_tool("picture")).content
    assert isinstance(content, ImageContent)
    assert content.mime_type == "image/png"
    png = base64.b64decode(content.data)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", png[16:24]) == (64, 64)


async def test_every_call_of_append_counts(demo_mcp: Served, mode: Mode) -> None:
    async with Client(demo_mcp.url, mode=mode) as client:
        first = int(text_of(await client.call_tool("append", {"text": mode})))
        assert text_of(await client.call_tool("append", {"text": mode})) == str(first + 1)


async def test_several_clients_call_at_the_same_time(demo_mcp: Served, mode: Mode) -> None:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Client(demo_mcp.url, mode=mode)) for _ in range(4)
        ]
        calls = [
            client.call_tool("echo", {"text": f"{number}"})
            for client in clients
            for number in range(5)
        ]
        assert [text_of(result) for result in await asyncio.gather(*calls)] == list("01234") * 4


async def test_it_can_be_a_server_of_before(tmp_path: Path, mode: Mode) -> None:
    served = await Served.start("chatd.dev.demo_mcp", "--legacy", folder=tmp_path)
    try:
        async with Client(served.url, mode=mode) as client:
            assert client.protocol_version == "2025-11-25"
            assert text_of(await client.call_tool("echo", {"text": "hi"})) == "hi"
    finally:
        await served.stop()
