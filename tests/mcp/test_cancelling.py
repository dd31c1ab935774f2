"""A call that its caller gives up: the server hears of it at once, in the way of its revision."""

import asyncio
from typing import Any

import pytest

from chatd.core.servers import SHARED
from chatd.mcp.pool import SessionPool
from tests.mcp.peer import Peer, call, event, result, running, server_at
from tests.mcp.test_sse import OldPeer
from tests.outbound.raw_server import Exchange

LINE = {"method": "notifications/message", "params": {"level": "info", "data": "working"}}


async def _cancelled(calling: asyncio.Task[Any]) -> None:
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_modern_servers_stream_is_closed(pool: SessionPool, streaming: bool) -> None:
    closed = asyncio.Event()

    async def work(exchange: Exchange, message: dict[str, Any]) -> None:
        if streaming:
            await exchange.begin()
            await exchange.chunk(event(LINE))
        await exchange.until_closed()
        closed.set()

    async with running(Peer()) as peer:
        peer.says["tools/call"] = work
        calling = asyncio.create_task(call(pool, server_at(peer.url), SHARED, "add", {}))
        await peer.until("tools/call")
        await _cancelled(calling)
        async with asyncio.timeout(1):
            await closed.wait()
    assert peer.count("notifications/cancelled") == 0


@pytest.mark.parametrize("streaming", [True, False])
async def test_an_older_server_is_told_which_request(pool: SessionPool, streaming: bool) -> None:
    async def work(exchange: Exchange, message: dict[str, Any]) -> None:
        if streaming:
            await exchange.begin()
            await exchange.chunk(event(LINE))
        await exchange.until_closed()

    async with running(Peer(modern=False)) as peer:
        peer.says["tools/call"] = work
        calling = asyncio.create_task(call(pool, server_at(peer.url), SHARED, "add", {}))
        await peer.until("tools/call")
        await _cancelled(calling)
        async with asyncio.timeout(1):
            await peer.until("notifications/cancelled")
    sent = peer.last("tools/call").message["id"]
    assert peer.last("notifications/cancelled").params["requestId"] == sent


async def test_over_sse_the_server_is_told_too(pool: SessionPool) -> None:
    async with running(OldPeer()) as peer:
        peer.says["tools/call"] = lambda exchange, _: exchange.answer(status=202)
        server = server_at(peer.url, transport="sse")
        calling = asyncio.create_task(call(pool, server, SHARED, "add", {}))
        await peer.until("tools/call")
        await _cancelled(calling)
        async with asyncio.timeout(1):
            await peer.until("notifications/cancelled")
        await pool.aclose()
    sent = peer.last("tools/call").message["id"]
    assert peer.last("notifications/cancelled").params["requestId"] == sent


async def test_a_call_that_is_cancelled_between_its_rounds_makes_no_other(
    pool: SessionPool,
) -> None:
    async with running(Peer()) as peer:

        async def again(exchange: Exchange, message: dict[str, Any]) -> None:
            answer = {"resultType": "input_required", "requestState": "s"}
            await result(exchange, message, answer)

        peer.says["tools/call"] = again
        calling = asyncio.create_task(call(pool, server_at(peer.url), SHARED, "add", {}))
        await peer.until("tools/call", 2)
        await _cancelled(calling)
        heard = peer.count("tools/call")
        del peer.says["tools/call"]
        await call(pool, server_at(peer.url), SHARED, "add", {})
    assert peer.count("tools/call") == heard + 1
