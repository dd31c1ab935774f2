"""What a pool tells of its connections: each once, and never at the cost of a call."""

from typing import Any
from uuid import uuid4

import pytest

from chatd.core.connections import ConnectionEvent
from chatd.core.servers import SHARED, Principal
from chatd.mcp.errors import ServerFailed
from tests.mcp.conftest import MakePool
from tests.mcp.peer import Peer, call, running, server_at
from tests.outbound.raw_server import Exchange


def brief(events: list[ConnectionEvent]) -> list[tuple[str, str]]:
    return [(event.outcome, event.error_code) for event in events]


@pytest.mark.parametrize(("status", "code"), [(401, "auth_required"), (403, "forbidden")])
async def test_a_server_that_does_not_let_us_in(
    make_pool: MakePool, status: int, code: str
) -> None:
    async def refuse(exchange: Exchange, message: dict[str, Any]) -> None:
        await exchange.answer(status=status)

    told: list[ConnectionEvent] = []
    async with running(Peer(modern=False)) as peer, make_pool(tell=told.append) as pool:
        peer.says["initialize"] = peer.says["server/discover"] = refuse
        with pytest.raises(ServerFailed):
            await pool.list_tools(server_at(peer.url), SHARED)
    assert brief(told) == [("unauthorized", code)]


async def test_a_server_that_nobody_serves_is_told_of_at_each_attempt(make_pool: MakePool) -> None:
    told: list[ConnectionEvent] = []
    async with make_pool(tell=told.append) as pool:
        with pytest.raises(ServerFailed):
            await pool.list_tools(server_at("http://127.0.0.1:9/mcp"), SHARED)
    assert brief(told) == [("refused", "refused")] * 2


async def test_a_server_that_does_not_answer_in_time(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(exchange: Exchange, message: dict[str, Any]) -> None:
        await exchange.until_closed()

    monkeypatch.setattr("chatd.mcp.pool.CONNECT_S", 0.05)
    told: list[ConnectionEvent] = []
    async with running(Peer()) as peer, make_pool(tell=told.append) as pool:
        peer.says["server/discover"] = hang
        with pytest.raises(ServerFailed):
            await pool.list_tools(server_at(peer.url), SHARED)
    assert brief(told) == [("timeout", "timeout")]


async def test_a_connection_begins_and_ends_once_whoever_uses_it(make_pool: MakePool) -> None:
    told: list[ConnectionEvent] = []
    user = Principal("user:1", user_id=uuid4())
    async with running(Peer()) as peer:
        server = server_at(peer.url)
        async with make_pool(tell=told.append) as pool:
            await call(pool, server, user, "add", {})
            await pool.list_tools(server, user)
            await call(pool, server, user, "add", {})
            assert brief(told) == [("connected", "")]
    assert brief(told) == [("connected", ""), ("disconnected", "")]
    began, ended = told
    assert (began.server_id, began.server_slug) == (server.id, server.slug)
    assert began.user_id == ended.user_id == user.user_id
    assert (began.tool_count, ended.tool_count) == (None, 1)


async def test_a_pool_that_closes_while_it_connects_does_not_blame_the_server(
    make_pool: MakePool,
) -> None:
    async def hang(exchange: Exchange, message: dict[str, Any]) -> None:
        await exchange.until_closed()

    told: list[ConnectionEvent] = []
    async with running(Peer()) as peer:
        peer.says["server/discover"] = hang
        async with make_pool(tell=told.append) as pool:
            with pytest.raises(ServerFailed):
                await pool.list_tools(server_at(peer.url), SHARED, timeout_s=0.05)
    assert brief(told) == [("failed", "closed")]
