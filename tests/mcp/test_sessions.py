"""How many sessions are open, for whom, and for how long."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from chatd.core.servers import SHARED, Principal
from chatd.mcp.errors import ServerFailed
from chatd.mcp.pool import SessionPool
from tests.mcp.conftest import MakePool
from tests.mcp.peer import Peer, call, result, running, server_at
from tests.outbound.raw_server import Exchange


async def _goodbye(exchange: Exchange, message: dict[str, Any]) -> None:
    await exchange.answer(status=200)


async def _hang(exchange: Exchange, message: dict[str, Any]) -> None:
    await exchange.until_closed()


async def test_nothing_is_opened_before_the_first_use(pool: SessionPool) -> None:
    async with running(Peer()) as peer:
        server_at(peer.url)
        assert peer.heard == []


async def test_callers_that_come_together_open_one_session(pool: SessionPool) -> None:
    async with running(Peer(modern=False)) as peer:
        server = server_at(peer.url)
        await asyncio.gather(*[call(pool, server, SHARED, "add", {}) for _ in range(20)])
    assert (peer.count("initialize"), peer.count("tools/call")) == (1, 20)


async def test_a_first_caller_that_gives_up_does_not_spoil_it_for_the_second(
    pool: SessionPool,
) -> None:
    release = asyncio.Event()

    async def late(exchange: Exchange, message: dict[str, Any]) -> None:
        await release.wait()
        del peer.says["server/discover"]
        await peer.answer(exchange)

    async with running(Peer()) as peer:
        peer.says["server/discover"] = late
        server = server_at(peer.url)
        first = asyncio.create_task(call(pool, server, SHARED, "add", {}))
        second = asyncio.create_task(call(pool, server, SHARED, "add", {}))
        await peer.until("server/discover")
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        release.set()
        assert (await second).outcome == "done"


async def test_a_new_version_of_the_configuration_gets_a_new_session(pool: SessionPool) -> None:
    async with running(Peer(modern=False)) as peer:
        for version in (1, 1, 2):
            await call(pool, server_at(peer.url, version=version), SHARED, "add", {})
    assert peer.count("initialize") == 2


async def test_a_session_serves_only_the_principal_who_opened_it(pool: SessionPool) -> None:
    async with running(Peer(modern=False)) as peer:
        server = server_at(peer.url)
        for key in ("user:1", "user:2", "user:1"):
            await call(pool, server, Principal(key, UUID(int=1)), "add", {})
    assert peer.count("initialize") == 2


async def test_an_idle_session_is_closed_and_the_server_is_told(make_pool: MakePool) -> None:
    async with make_pool(idle_s=0.05) as pool, running(Peer(modern=False)) as peer:
        peer.says["DELETE"] = _goodbye
        server = server_at(peer.url)
        await call(pool, server, SHARED, "add", {})
        await peer.until("DELETE")
        assert peer.last("DELETE").headers["mcp-session-id"] == "session-1"
        assert (await call(pool, server, SHARED, "add", {})).outcome == "done"
    assert peer.count("initialize") == 2


async def test_a_session_in_use_is_not_idle(make_pool: MakePool) -> None:
    release = asyncio.Event()

    async def wait(exchange: Exchange, message: dict[str, Any]) -> None:
        await release.wait()
        await result(exchange, message, {"content": []})

    async with make_pool(idle_s=0.02) as pool, running(Peer(modern=False)) as peer:
        peer.says |= {"DELETE": _goodbye, "tools/call": wait}
        busy = asyncio.create_task(call(pool, server_at(peer.url), SHARED, "add", {}))
        await peer.until("tools/call")
        await pool.list_tools(server_at(peer.url, id=UUID(int=2)), SHARED)
        await peer.until("DELETE")
        assert not busy.done()
        release.set()
        assert (await busy).outcome == "done"


async def test_above_the_limit_the_least_recently_used_session_closes(
    make_pool: MakePool,
) -> None:
    async with make_pool(limit=2) as pool, running(Peer(modern=False)) as peer:
        peer.says["DELETE"] = _goodbye

        async def use(number: int) -> None:
            peer.session = f"session-{number}"
            await call(pool, server_at(peer.url, id=UUID(int=number)), SHARED, "add", {})

        for number in (1, 2, 1, 3):
            await use(number)
        await peer.until("DELETE")
        assert peer.last("DELETE").headers["mcp-session-id"] == "session-2"
        await use(1)
        assert peer.count("initialize") == 3


async def test_closing_does_not_wait_for_a_server_that_hangs(pool: SessionPool) -> None:
    async with running(Peer(modern=False)) as peer:
        peer.says["DELETE"] = _hang
        await call(pool, server_at(peer.url), SHARED, "add", {})
        async with asyncio.timeout(10):
            await pool.aclose()
        assert peer.count("DELETE") == 1


async def test_a_failure_to_connect_is_told_to_all_who_wait(pool: SessionPool) -> None:
    async def refuse(exchange: Exchange, message: dict[str, Any]) -> None:
        await exchange.answer(status=401)

    async with running(Peer()) as peer:
        peer.says |= {"server/discover": refuse, "initialize": refuse}
        server = server_at(peer.url)
        failures = await asyncio.gather(
            *[pool.list_tools(server, SHARED) for _ in range(5)], return_exceptions=True
        )
        assert peer.count("initialize") == 1
        del peer.says["server/discover"]
        assert len((await pool.list_tools(server, SHARED)).tools) == 1
    assert [f.reason for f in failures if isinstance(f, ServerFailed)] == ["auth_required"] * 5


async def test_what_may_not_be_used_any_more_is_closed_and_the_rest_stays(
    pool: SessionPool,
) -> None:
    ada, eve = UUID(int=1), UUID(int=2)
    async with running(Peer(modern=False)) as peer:
        peer.says["DELETE"] = _goodbye
        server = server_at(peer.url)
        for user in (ada, eve):
            await call(pool, server, Principal(f"user:{user}", user), "add", {})
        await call(pool, server, SHARED, "add", {})
        assert pool.users == {ada, eve}
        pool.drop(
            lambda server_id, version, user: (server_id, version, user) != (server.id, 1, eve)
        )
        await peer.until("DELETE")
        assert pool.users == {ada}
        for principal in (SHARED, Principal(f"user:{ada}", ada), Principal(f"user:{eve}", eve)):
            await call(pool, server, principal, "add", {})
    assert peer.count("initialize") == 4


async def test_a_call_in_flight_ends_before_its_session_closes(pool: SessionPool) -> None:
    release = asyncio.Event()

    async def wait(exchange: Exchange, message: dict[str, Any]) -> None:
        await release.wait()
        await result(exchange, message, {"content": []})

    async with running(Peer(modern=False)) as peer:
        peer.says |= {"DELETE": _goodbye, "tools/call": wait}
        server = server_at(peer.url)
        busy = asyncio.create_task(call(pool, server, SHARED, "add", {}))
        await peer.until("tools/call")
        pool.drop(lambda server_id, version, user: False)
        assert peer.count("DELETE") == 0
        release.set()
        assert (await busy).outcome == "done"
        await peer.until("DELETE")
        del peer.says["tools/call"]
        assert (await call(pool, server, SHARED, "add", {})).outcome == "done"
    assert peer.count("initialize") == 2
