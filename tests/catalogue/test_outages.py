"""What a turn gets when a server or Redis does not answer."""

import asyncio
import os
import signal
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis

from chatd.catalogue import Catalogue, Listing, Skipped
from chatd.core.servers import SHARED
from chatd.dev.valkey import Valkey
from tests.catalogue.conftest import Clock, MakeCatalogue, names
from tests.mcp.peer import Peer, Say, running, server_at
from tests.outbound.raw_server import Exchange


async def _hang(exchange: Exchange, message: dict[str, Any]) -> None:
    await exchange.until_closed()


def _status(status: int) -> Say:
    async def say(exchange: Exchange, message: dict[str, Any]) -> None:
        await exchange.answer(status=status)

    return say


def _no_answer(peer: Peer, say: Say) -> None:
    peer.says |= dict.fromkeys(("server/discover", "initialize", "tools/list"), say)


@pytest.mark.parametrize(("hours", "found"), [(1, ["add"]), (23.9, ["add"]), (24.1, "unreachable")])
async def test_an_old_list_is_served_for_a_day_when_fetching_fails(
    make_catalogue: MakeCatalogue, clock: Clock, hours: float, found: object
) -> None:
    catalogue = make_catalogue()
    async with running(Peer()) as peer:
        server = server_at(peer.url)
        await names(catalogue, server)
    clock.now += hours * 3600
    assert await names(catalogue, server) == found
    assert await names(make_catalogue(), server) == found


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "auth_required"), (403, "forbidden"), (404, "unreachable")]
)
async def test_a_server_that_shuts_us_out_loses_its_list_everywhere(
    make_catalogue: MakeCatalogue, clock: Clock, status: int, reason: str
) -> None:
    catalogue = make_catalogue()
    async with running(Peer()) as peer:
        server = server_at(peer.url)
        await names(catalogue, server)
        _no_answer(peer, _status(status))
        clock.now += 700
        assert await names(catalogue, server) == reason
        assert await names(make_catalogue(), server) == reason
        heard = len(peer.heard)
        assert await names(catalogue, server) == reason
        assert len(peer.heard) > heard


async def test_a_dead_server_costs_its_deadline_once_for_the_fleet(
    make_catalogue: MakeCatalogue, clock: Clock
) -> None:
    async with running(Peer()) as peer:
        _no_answer(peer, _hang)
        server = server_at(peer.url)
        assert await names(make_catalogue(cold_s=0.3), server) == "unreachable"
        heard = len(peer.heard)
        for catalogue in (make_catalogue(), make_catalogue()):
            for key in ("shared", "user:1"):
                assert await names(catalogue, server, key) == "unreachable"
        assert len(peer.heard) == heard
        peer.says.clear()
        assert await names(make_catalogue(), server_at(peer.url, version=2)) == ["add"]


async def test_after_the_breaker_s_minute_the_server_is_tried_again(
    catalogue: Catalogue, clock: Clock, redis: Redis
) -> None:
    peer = Peer()
    async with running(peer):
        server = server_at(peer.url)
    assert await names(catalogue, server) == "unreachable"
    async with running(peer):
        assert await names(catalogue, server) == "unreachable"
        clock.now += 61
        # Redis keeps its own time.
        await redis.delete(f"chatd:mcp:down:{server.id}:{server.version}")
        assert await names(catalogue, server) == ["add"]


async def test_one_dead_server_does_not_cost_the_others_their_tools(
    make_catalogue: MakeCatalogue,
) -> None:
    catalogue = make_catalogue(cold_s=0.3)
    async with running(Peer()) as good, running(Peer()) as dead:
        _no_answer(dead, _hang)
        servers = [server_at(dead.url), server_at(good.url, id=UUID(int=2))]
        first, second = await catalogue.lists([(server, SHARED) for server in servers])
    assert isinstance(first, Skipped)
    assert isinstance(second, Listing)


async def test_a_bad_answer_does_not_open_the_breaker(catalogue: Catalogue) -> None:
    async with running(Peer()) as peer:
        peer.says["tools/list"] = _status(500)
        server = server_at(peer.url)
        for _ in range(2):
            assert await names(catalogue, server) == "unreachable"
        assert peer.count("tools/list") == 2


async def test_nothing_is_lost_when_redis_dies(
    make_catalogue: MakeCatalogue, valkey: Valkey, clock: Clock
) -> None:
    catalogue = make_catalogue()
    async with running(Peer()) as peer:
        server = server_at(peer.url)
        await names(catalogue, server)
        valkey.kill()
        clock.now += 700
        assert await names(catalogue, server) == ["add"]
        assert await names(make_catalogue(), server) == ["add"]
        assert peer.count("tools/list") == 3


async def test_a_redis_that_hangs_is_not_waited_for(
    make_catalogue: MakeCatalogue, valkey: Valkey
) -> None:
    async with running(Peer()) as peer:
        os.kill(valkey.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(5):
                assert await names(make_catalogue(), server_at(peer.url)) == ["add"]
        finally:
            os.kill(valkey.pid, signal.SIGCONT)


async def test_what_another_release_wrote_is_as_if_it_were_not_there(
    make_catalogue: MakeCatalogue, redis: Redis
) -> None:
    async with running(Peer()) as peer:
        server = server_at(peer.url)
        for content in (b"{}", b"nonsense", b'{"fetched_at": 1, "listed": {"tools": [{"x": 1}]}}'):
            await redis.set(f"chatd:mcp:list:{server.id}:1:shared", content)
            assert await names(make_catalogue(), server) == ["add"]
        assert peer.count("tools/list") == 3


async def test_a_lock_whose_owner_died_is_waited_for_no_longer_than_a_fetch(
    make_catalogue: MakeCatalogue, redis: Redis
) -> None:
    async with running(Peer()) as peer:
        server = server_at(peer.url)
        await redis.set(f"chatd:mcp:lock:{server.id}:1:shared", b"1", px=60_000)
        catalogue = make_catalogue(cold_s=0.5)
        await names(catalogue, server)
        await catalogue.settled()
        assert await names(catalogue, server) == ["add"]
