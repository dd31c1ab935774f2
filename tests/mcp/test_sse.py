"""The old HTTP+SSE transport: answers come by another connection than requests."""

import asyncio
from typing import Any

import pytest

from chatd.core.servers import SHARED
from chatd.mcp.errors import ServerFailed
from chatd.mcp.pool import SessionPool
from tests.mcp.peer import INITIALIZED, Peer, call, event, running, server_at
from tests.outbound.raw_server import Exchange


class OldPeer(Peer):
    """Announces where to post, then answers on the stream; `mute` methods are refused."""

    def __init__(self) -> None:
        super().__init__(modern=False)
        self.refused: dict[str, int] = {}
        self.endpoint = "/messages?session_id=1"
        self.hang_up = asyncio.Event()
        self._stream: Exchange | None = None
        self.says |= {"GET": self._announce}

    async def _announce(self, exchange: Exchange, message: dict[str, Any]) -> None:
        self._stream = exchange
        await exchange.begin()
        await exchange.chunk(f"event: endpoint\ndata: {self.endpoint}\n\n".encode())
        closed = asyncio.create_task(exchange.until_closed())
        await asyncio.wait(
            {closed, asyncio.create_task(self.hang_up.wait())},
            return_when=asyncio.FIRST_COMPLETED,
        )
        exchange.writer.close()

    async def _answer(self, exchange: Exchange, message: dict[str, Any], method: str) -> None:
        if method in self.refused:
            await exchange.answer(status=self.refused[method])
            return
        await exchange.answer(status=202)
        values: dict[str, Any] = {
            "initialize": INITIALIZED,
            "tools/list": {"tools": list(self.tools)},
            "tools/call": {"content": [{"type": "text", "text": "ok"}]},
        }
        if method in values and self._stream is not None:
            await self._stream.chunk(event({"id": message["id"], "result": values[method]}))


async def test_it_lists_and_calls(pool: SessionPool) -> None:
    async with running(OldPeer()) as peer:
        server = server_at(peer.url, transport="sse")
        assert len((await pool.list_tools(server, SHARED)).tools) == 1
        assert (await call(pool, server, SHARED, "add", {})).text == "ok"
        await pool.aclose()
    assert peer.count("server/discover") == 0


@pytest.mark.parametrize(
    ("status", "outcome", "posts"), [(401, "failed", 1), (404, "failed", 2), (500, "unknown", 1)]
)
async def test_a_refused_post_ends_its_call_and_no_other(
    pool: SessionPool, status: int, outcome: str, posts: int
) -> None:
    async with running(OldPeer()) as peer:
        peer.refused["tools/call"] = status
        server = server_at(peer.url, transport="sse")
        answer = await call(pool, server, SHARED, "add", {})
        assert (answer.outcome, peer.count("tools/call")) == (outcome, posts)
        assert len((await pool.list_tools(server, SHARED)).tools) == 1
        await pool.aclose()


async def test_a_stream_that_breaks_leaves_the_call_unknown(pool: SessionPool) -> None:
    async with running(OldPeer()) as peer:
        peer.says["tools/call"] = lambda exchange, _: exchange.answer(status=202)
        server = server_at(peer.url, transport="sse")
        calling = asyncio.create_task(call(pool, server, SHARED, "add", {}))
        await peer.until("tools/call")
        peer.hang_up.set()
        assert (await calling).outcome == "unknown"
    assert peer.count("tools/call") == 1


async def test_it_posts_to_no_other_origin(pool: SessionPool) -> None:
    async with running(OldPeer()) as peer, running(Peer()) as other:
        peer.endpoint = other.url
        with pytest.raises(ServerFailed):
            await pool.list_tools(server_at(peer.url, transport="sse"), SHARED, timeout_s=0.5)
        assert other.heard == []


async def test_a_stream_that_is_refused_has_a_reason(pool: SessionPool) -> None:
    async with running(Peer()) as peer:
        peer.says["GET"] = lambda exchange, _: exchange.answer(status=403)
        with pytest.raises(ServerFailed) as failed:
            await pool.list_tools(server_at(peer.url, transport="sse"), SHARED, timeout_s=5)
    assert failed.value.reason == "forbidden"
