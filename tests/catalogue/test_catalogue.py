"""How often servers are asked for their tools."""

import asyncio
from typing import Any, cast
from uuid import UUID

import pytest
from redis.asyncio import Redis

from chatd.catalogue import Catalogue, Listing
from chatd.core.servers import SHARED
from tests.catalogue.conftest import Clock, MakeCatalogue, names
from tests.mcp.peer import ADD, Peer, Say, event, result, running, server_at
from tests.outbound.raw_server import Exchange


def _list_of(**more: Any) -> Say:
    async def say(exchange: Exchange, message: dict[str, Any]) -> None:
        await result(exchange, message, {"tools": [ADD], **more})

    return say


async def test_a_warm_list_asks_nobody_and_waits_for_nothing(
    catalogue: Catalogue, clock: Clock
) -> None:
    async with running(Peer()) as peer:
        server = server_at(peer.url)
        (cold,) = await catalogue.lists([(server, SHARED)])
        heard = len(peer.heard)
        clock.now += 59
        warm = catalogue.lists([(server, SHARED)])
        with pytest.raises(StopIteration) as done:
            warm.send(None)
        assert done.value.value[0] is cold
        assert len(peer.heard) == heard
    assert isinstance(cold, Listing)
    assert cold.instructions == "Be kind."


async def test_turns_that_come_together_share_one_fetch(catalogue: Catalogue) -> None:
    async with running(Peer()) as peer:
        server = server_at(peer.url)
        lists = [catalogue.lists([(server, SHARED), (server, SHARED)]) for _ in range(20)]
        outcomes = await asyncio.gather(*lists)
        assert peer.count("tools/list") == 1
    assert all(isinstance(outcome, Listing) for pair in outcomes for outcome in pair)


async def test_a_fleet_shares_one_fetch(make_catalogue: MakeCatalogue) -> None:
    async with running(Peer()) as peer:
        server = server_at(peer.url)
        fleet = [make_catalogue() for _ in range(4)]
        found = await asyncio.gather(*[names(catalogue, server) for catalogue in fleet])
        assert found == [["add"]] * 4
        assert await names(make_catalogue(), server) == ["add"]
        assert peer.count("tools/list") == 1


async def test_a_list_comes_back_from_redis_as_it_was(
    make_catalogue: MakeCatalogue,
) -> None:
    async with running(Peer(tools=[ADD, {"name": "bad"}])) as peer:
        request = (server_at(peer.url), SHARED)
        (first,), (second,) = [await make_catalogue().lists([request]) for _ in range(2)]
        assert first == second
        assert isinstance(second, Listing)
        assert [drop.reason for drop in second.quarantined] == ["unusable_schema"]


async def test_principals_do_not_share_even_what_a_server_calls_public(
    make_catalogue: MakeCatalogue,
) -> None:
    async with running(Peer()) as peer:
        peer.says["tools/list"] = _list_of(cacheScope="public", ttlMs=60_000)
        server = server_at(peer.url)
        for key in ("user:1", "user:2"):
            assert await names(make_catalogue(), server, key) == ["add"]
        assert peer.count("tools/list") == 2


async def test_a_new_version_of_the_configuration_is_fetched_anew(catalogue: Catalogue) -> None:
    async with running(Peer()) as peer:
        for version in (1, 2, 2):
            await names(catalogue, server_at(peer.url, version=version))
        assert peer.count("tools/list") == 2


async def test_a_stale_list_is_served_at_once_and_fetched_behind(
    catalogue: Catalogue, clock: Clock
) -> None:
    async with running(Peer()) as peer:
        server = server_at(peer.url)
        await names(catalogue, server)
        peer.tools = [ADD | {"name": "new"}]
        clock.now += 61
        assert await names(catalogue, server) == ["add"]
        await peer.until("tools/list", 2)
        await catalogue.settled()
        assert await names(catalogue, server) == ["new"]
        assert peer.count("tools/list") == 2


async def test_a_server_may_say_how_long_its_list_is_good_for(
    catalogue: Catalogue, clock: Clock
) -> None:
    async with running(Peer()) as peer:
        peer.says["tools/list"] = _list_of(ttlMs=3_600_000)
        server = server_at(peer.url)
        await names(catalogue, server)
        clock.now += 3599
        await names(catalogue, server)
        await catalogue.settled()
        assert peer.count("tools/list") == 1


async def test_an_old_list_is_fetched_before_use(catalogue: Catalogue, clock: Clock) -> None:
    async with running(Peer()) as peer:
        server = server_at(peer.url)
        await names(catalogue, server)
        peer.tools = [ADD | {"name": "new"}]
        clock.now += 661
        assert await names(catalogue, server) == ["new"]


async def test_an_empty_list_is_no_truth_for_longer_than_it_is_fresh(
    catalogue: Catalogue, clock: Clock
) -> None:
    async with running(Peer(tools=[])) as peer:
        server = server_at(peer.url)
        assert await names(catalogue, server) == []
        assert await names(catalogue, server) == []
        assert peer.count("tools/list") == 1
        peer.tools = [ADD]
        clock.now += 61
        assert await names(catalogue, server) == ["add"]


async def test_an_empty_list_is_not_served_in_place_of_an_answer(
    catalogue: Catalogue, clock: Clock
) -> None:
    async with running(Peer(tools=[])) as peer:
        server = server_at(peer.url)
        await names(catalogue, server)
    clock.now += 61
    assert await names(catalogue, server) == "unreachable"


async def test_a_server_that_says_its_tools_changed_is_asked_again_but_not_at_every_word(
    catalogue: Catalogue, clock: Clock
) -> None:
    words = asyncio.Queue[None]()

    async def tell(exchange: Exchange, message: dict[str, Any]) -> None:
        meta = {"io.modelcontextprotocol/subscriptionId": message["id"]}
        params = {"notifications": {"toolsListChanged": True}, "_meta": meta}
        method = "notifications/subscriptions/acknowledged"
        await exchange.begin()
        await exchange.chunk(event({"method": method, "params": params}))
        while True:
            await words.get()
            method = "notifications/tools/list_changed"
            await exchange.chunk(event({"method": method, "params": {"_meta": meta}}))

    async with running(Peer()) as peer:
        peer.says["subscriptions/listen"] = tell
        server = server_at(peer.url)
        await names(catalogue, server)
        peer.tools = [ADD | {"name": "new"}]
        clock.now += 6
        for _ in range(10):
            words.put_nowait(None)
        await peer.until("tools/list", 2)
        await catalogue.settled()
        assert await names(catalogue, server) == ["new"]
        assert peer.count("tools/list") == 2


async def test_what_may_not_be_used_any_more_is_forgotten_and_the_rest_kept(
    catalogue: Catalogue, redis: Redis
) -> None:
    ada, eve = UUID(int=1), UUID(int=2)
    async with running(Peer()) as peer:
        server = server_at(peer.url)
        for key in (f"user:{ada}:chat:{ada}", f"user:{eve}:chat:{ada}", "shared"):
            await names(catalogue, server, key)
        assert catalogue.users == {ada, eve}
        catalogue.drop(lambda server_id, version, user: user != eve)
        assert catalogue.users == {ada}
        catalogue.drop(lambda server_id, version, user: version != server.version)
        assert catalogue.users == frozenset()
        await cast(Any, redis).flushall()
        await names(catalogue, server)
        assert peer.count("tools/list") == 4


def _held_back(release: asyncio.Event) -> Say:
    async def say(exchange: Exchange, message: dict[str, Any]) -> None:
        await release.wait()
        await result(exchange, message, {"tools": [ADD]})

    return say


async def test_what_was_dropped_while_it_was_fetched_is_not_kept(
    catalogue: Catalogue, redis: Redis
) -> None:
    ada = UUID(int=1)
    key = f"user:{ada}:chat:{ada}"
    async with running(Peer()) as peer:
        release = asyncio.Event()
        peer.says["tools/list"] = _held_back(release)
        server = server_at(peer.url)
        fetching = asyncio.create_task(names(catalogue, server, key))
        await peer.until("tools/list")
        catalogue.drop(lambda server_id, version, user: user != ada)
        release.set()
        assert await fetching == ["add"]
        assert catalogue.users == frozenset()
        await cast(Any, redis).flushall()
        assert await names(catalogue, server, key) == ["add"]
        assert (catalogue.users, peer.count("tools/list")) == ({ada}, 2)


async def test_the_list_of_an_older_configuration_takes_nobodys_place(
    catalogue: Catalogue, redis: Redis
) -> None:
    async with running(Peer()) as peer:
        for version in (2, 1, 2):
            await names(catalogue, server_at(peer.url, version=version))
            await cast(Any, redis).flushall()
        assert peer.count("tools/list") == 2


async def test_the_older_configuration_that_is_refused_costs_the_newer_nothing(
    catalogue: Catalogue, redis: Redis
) -> None:
    async def refuse(exchange: Exchange, _: dict[str, Any]) -> None:
        await exchange.answer(status=403)

    async with running(Peer()) as peer:
        server = server_at(peer.url, version=2)
        await names(catalogue, server)
        peer.says["tools/list"] = refuse
        assert await names(catalogue, server_at(peer.url, version=1)) == "forbidden"
        await cast(Any, redis).flushall()
        assert await names(catalogue, server) == ["add"]


async def test_a_dropped_configuration_is_not_known_to_be_down_any_more(
    catalogue: Catalogue, redis: Redis
) -> None:
    peer = Peer()
    async with running(peer):
        server = server_at(peer.url)
    assert await names(catalogue, server) == "unreachable"
    async with running(peer):
        await cast(Any, redis).flushall()
        assert await names(catalogue, server) == "unreachable"
        catalogue.drop(lambda server_id, version, user: False)
        assert await names(catalogue, server) == ["add"]
