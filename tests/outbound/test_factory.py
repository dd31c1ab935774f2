"""The clients of one process: shared pools, nothing carried from one user to the next."""

from collections.abc import AsyncGenerator
from ipaddress import ip_network

import httpx2
import pytest

from chatd.outbound import BlockedAddress, Outbound
from chatd.outbound.factory import METADATA_LIMIT
from tests.outbound.conftest import LOOPBACK, Authority
from tests.outbound.raw_server import Exchange, serving


@pytest.fixture
async def outbound(authority: Authority) -> AsyncGenerator[Outbound]:
    made = Outbound(LOOPBACK, LOOPBACK, tls=authority.trusted())
    yield made
    await made.aclose()


async def ok(exchange: Exchange) -> None:
    await exchange.answer(b"ok", headers="set-cookie: session=of-one-user\r\n")


async def test_clients_share_connections_and_closing_one_closes_nothing(outbound: Outbound) -> None:
    async with serving(ok) as server:
        for _ in range(3):
            async with outbound.mcp_client() as http:
                assert (await http.get(server.url)).text == "ok"
    assert server.connections == 1


async def test_cookies_are_not_kept(outbound: Outbound) -> None:
    async with serving(ok) as server:
        for http in (outbound.model_client(), outbound.mcp_client()):
            await http.get(server.url)
            await http.get(server.url)
    assert all("cookie" not in exchange.headers for exchange in server.exchanges)


async def test_redirects_are_not_followed(outbound: Outbound) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(status=307, headers="location: /elsewhere\r\n")

    async with serving(answer) as server:
        clients = (
            outbound.model_client(),
            outbound.mcp_client(),
            await outbound.discovery_client(server.url),
        )
        for http in clients:
            assert (await http.get(server.url)).status_code == 307
    assert {exchange.path for exchange in server.exchanges} == {"/"}


async def test_proxy_settings_of_the_environment_are_ignored(
    outbound: Outbound, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with serving(ok) as server:
        assert (await outbound.mcp_client().get(server.url)).text == "ok"


async def test_answers_are_asked_for_without_compression(outbound: Outbound) -> None:
    async with serving(ok) as server:
        await outbound.mcp_client().get(server.url)
        await outbound.model_client().get(server.url)
    assert {e.headers["accept-encoding"] for e in server.exchanges} == {"identity"}


async def test_each_client_sends_its_own_credentials(outbound: Outbound) -> None:
    async with serving(ok) as server:
        for name in ("one", "two"):
            await outbound.mcp_client(auth=httpx2.BasicAuth(name, "x")).get(server.url)
    first, second = (exchange.headers["authorization"] for exchange in server.exchanges)
    assert first != second


async def test_the_two_allow_lists_are_apart(authority: Authority) -> None:
    models_only = Outbound(LOOPBACK, (), tls=authority.trusted())
    async with serving(ok) as server:
        assert (await models_only.model_client().get(server.url)).text == "ok"
        with pytest.raises(BlockedAddress):
            await models_only.mcp_client().get(server.url)
    await models_only.aclose()


async def test_discovered_urls_are_private_only_if_the_configured_server_is(
    authority: Authority,
) -> None:
    allowed = (*LOOPBACK, ip_network("10.0.0.0/8"))
    outbound = Outbound((), allowed, tls=authority.trusted())
    async with serving(ok) as server:
        inside = await outbound.discovery_client("http://localhost:1/mcp")
        assert (await inside.get(server.url)).text == "ok"
        for configured in ("https://1.1.1.1/mcp", "https://10.0.0.1/mcp"):
            elsewhere = await outbound.discovery_client(configured)
            with pytest.raises(BlockedAddress):
                await elsewhere.get(server.url)
    assert server.connections == 1
    await outbound.aclose()


async def test_metadata_is_small(outbound: Outbound) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"x" * (METADATA_LIMIT + 1))

    async with serving(answer) as server:
        http = await outbound.discovery_client(server.url)
        with pytest.raises(httpx2.RemoteProtocolError, match="larger"):
            await http.get(server.url)


async def test_more_mcp_connections_than_the_library_allows_by_default(outbound: Outbound) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.chunk(b": hello\n\n")
        await exchange.until_closed()

    async with serving(answer) as server:
        http = outbound.mcp_client()
        streams = [http.build_request("GET", server.url) for _ in range(120)]
        responses = [await http.send(request, stream=True) for request in streams]
        assert server.connections == 120
        for response in responses:
            await response.aclose()
