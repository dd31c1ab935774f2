"""Listing the tools of servers of both eras."""

import asyncio
from typing import Any

import pytest
from mcp.server import MCPServer

from chatd.core.servers import SHARED
from chatd.mcp.errors import ServerFailed
from chatd.mcp.listing import MAX_PAGES
from chatd.mcp.pool import SessionPool
from tests.mcp.peer import ADD, Peer, call, error, event, result, running, running_app, server_at
from tests.outbound.raw_server import Exchange


def _numbered(first: int, last: int) -> list[dict[str, Any]]:
    return [ADD | {"name": f"tool{number}"} for number in range(first, last)]


@pytest.mark.parametrize("modern", [True, False])
async def test_a_server_of_either_era_is_listed(pool: SessionPool, modern: bool) -> None:
    async with running(Peer(modern=modern)) as peer:
        listed = await pool.list_tools(server_at(peer.url), SHARED)
    assert [tool.name for tool in listed.tools] == ["add"]
    assert listed.tools[0].input_schema["required"] == []
    assert listed.instructions == "Be kind."
    assert peer.count("tools/list") == 1


@pytest.mark.parametrize(("path", "transport"), [("mcp", "streamable_http"), ("sse", "sse")])
async def test_a_server_made_with_the_sdk_is_listed_and_called(
    pool: SessionPool, path: str, transport: str
) -> None:
    made: MCPServer[Any] = MCPServer("made", instructions="Hello.")

    @made.tool()
    def double(number: int) -> int:
        """Twice the number."""
        return 2 * number

    app = made.streamable_http_app() if path == "mcp" else made.sse_app()
    async with running_app(app) as origin:
        server = server_at(f"{origin}/{path}", transport=transport)
        listed = await pool.list_tools(server, SHARED)
        answer = await call(pool, server, SHARED, "double", {"number": 21})
        await pool.aclose()
    assert [(tool.name, tool.description) for tool in listed.tools] == [
        ("double", "Twice the number.")
    ]
    assert (answer.text, answer.outcome) == ("42", "done")


async def test_all_pages_are_followed(pool: SessionPool) -> None:
    pages = {None: (0, 100, "b"), "b": (100, 200, "c"), "c": (200, 250, None)}

    async def page(exchange: Exchange, message: dict[str, Any]) -> None:
        first, last, cursor = pages[message["params"].get("cursor")]
        value: dict[str, Any] = {"tools": _numbered(first, last)}
        await result(exchange, message, value | ({"nextCursor": cursor} if cursor else {}))

    async with running(Peer()) as peer:
        peer.says["tools/list"] = page
        listed = await pool.list_tools(server_at(peer.url), SHARED)
    assert len(listed.tools) == 250
    assert peer.count("tools/list") == 3


@pytest.mark.parametrize(("endless", "pages"), [(False, 2), (True, MAX_PAGES)])
async def test_pages_that_never_end_are_left(pool: SessionPool, endless: bool, pages: int) -> None:
    async def page(exchange: Exchange, message: dict[str, Any]) -> None:
        number = peer.count("tools/list")
        cursor = f"c{number}" if endless else "again"
        value = {"tools": _numbered(number, number + 1), "nextCursor": cursor}
        await result(exchange, message, value)

    async with running(Peer()) as peer:
        peer.says["tools/list"] = page
        listed = await pool.list_tools(server_at(peer.url), SHARED)
    assert len(listed.tools) == peer.count("tools/list") == pages


async def test_one_sloppy_tool_costs_only_itself(pool: SessionPool) -> None:
    broken: list[object] = [{"name": "broken", "inputSchema": "none"}, 7, ADD]
    async with running(Peer(tools=[ADD, *broken])) as peer:
        listed = await pool.list_tools(server_at(peer.url), SHARED)
    assert [tool.name for tool in listed.tools] == ["add"]
    assert [drop.reason for drop in listed.quarantined] == [
        "unusable_schema",
        "unusable_name",
        "duplicate_name",
    ]


async def test_a_server_without_tools_has_an_empty_list(pool: SessionPool) -> None:
    async def unknown(exchange: Exchange, message: dict[str, Any]) -> None:
        await error(exchange, message, -32601, "Method not found", status=404)

    async with running(Peer()) as peer:
        peer.says["tools/list"] = unknown
        assert (await pool.list_tools(server_at(peer.url), SHARED)).tools == ()


async def _hang_up(exchange: Exchange, message: dict[str, Any]) -> None:
    exchange.writer.close()


async def test_a_list_arrives_although_it_holds_what_json_parsers_refuse(
    pool: SessionPool,
) -> None:
    async def say(exchange: Exchange, message: dict[str, Any]) -> None:
        tool = b'{"name":"add","description":"\\ud83d \xff","inputSchema":{"type":"object"}}'
        body = b'{"jsonrpc":"2.0","id":%d,"result":{"tools":[%s]}}' % (message["id"], tool)
        await exchange.answer(body, headers="content-type: application/json\r\n")

    async with running(Peer()) as peer:
        peer.says["tools/list"] = say
        listed = await pool.list_tools(server_at(peer.url), SHARED)
    assert listed.tools[0].description == "\ufffd \ufffd"


async def test_a_bad_answer_to_one_does_not_disturb_another(pool: SessionPool) -> None:
    release = asyncio.Event()

    async def wait(exchange: Exchange, message: dict[str, Any]) -> None:
        await release.wait()
        await result(exchange, message, {"content": [{"type": "text", "text": "still here"}]})

    async with running(Peer()) as peer:
        peer.says |= {"tools/call": wait, "tools/list": _hang_up}
        server = server_at(peer.url)
        calling = asyncio.create_task(call(pool, server, SHARED, "add", {}))
        await peer.until("tools/call")
        with pytest.raises(ServerFailed):
            await pool.list_tools(server, SHARED)
        release.set()
        assert (await calling).text == "still here"


@pytest.mark.parametrize("modern", [True, False])
async def test_a_server_that_says_its_tools_changed_is_heard(
    pool: SessionPool, modern: bool
) -> None:
    changed: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
    pool.watch(lambda server, principal: changed.put_nowait((server.version, principal.key)))

    async def tell(exchange: Exchange, message: dict[str, Any]) -> None:
        meta = {"io.modelcontextprotocol/subscriptionId": message.get("id")}
        await exchange.begin()
        if modern:
            params = {"notifications": {"toolsListChanged": True}, "_meta": meta}
            method = "notifications/subscriptions/acknowledged"
            await exchange.chunk(event({"method": method, "params": params}))
        notification = {"method": "notifications/tools/list_changed", "params": {"_meta": meta}}
        await exchange.chunk(event(notification))
        await exchange.until_closed()

    async with running(Peer(modern=modern)) as peer:
        peer.says["subscriptions/listen" if modern else "GET"] = tell
        await pool.list_tools(server_at(peer.url), SHARED)
        assert await changed.get() == (1, "shared")
        await pool.aclose()


async def test_a_list_that_takes_long_to_read_is_given_up(pool: SessionPool) -> None:
    """However fast it came: reading it takes the time of all turns of a worker."""
    choices = [{"type": "string"}] * 1900
    tools = [
        ADD | {"name": f"t{number}", "inputSchema": {"type": "object", "anyOf": choices}}
        for number in range(100)
    ]
    async with running(Peer(tools=tools)) as peer:
        with pytest.raises(ServerFailed) as failed:
            await pool.list_tools(server_at(peer.url), SHARED, timeout_s=1)
    assert failed.value.reason == "timeout"
