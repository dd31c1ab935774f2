"""How often something may be asked for, with Redis and without; whose visits count as whose."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from socket import AF_UNIX, socket
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from redis.asyncio import Redis
from starlette.requests import HTTPConnection

from chatd.api.rates import Rates, client_of
from chatd.cli.api import server_config
from chatd.core.errors import TooMany
from chatd.settings import Settings
from chatd.store.db import Database
from chatd.store.sessions import create_session
from tests.api.browsing import Browser, ask_to_connect
from tests.api.conftest import BASE, Person
from tests.api.issuer import Issuer, serving_issuer
from tests.api.oidc_provider import CLIENT_ID, CLIENT_SECRET, Provider, providing
from tests.api.served import running, serving
from tests.api.test_oauth_discovery import add

FLOODER, NEIGHBOUR = "198.51.100.7", "198.51.100.8"
FEW = 8


async def refused(rates: Rates, who: str, *, times: int) -> int:
    count = 0
    for _ in range(times):
        try:
            await rates.take("x", who, limit=2)
        except TooMany:
            count += 1
    return count


async def test_processes_count_together_and_users_apart(redis: Redis) -> None:
    one, other = Rates(redis, window_s=3600), Rates(redis, window_s=3600)
    assert await refused(one, "ada", times=2) == 0
    assert await refused(other, "ada", times=1) == 1
    assert await refused(other, "max", times=1) == 0
    for key in await redis.keys("chatd:rates:*"):
        assert await redis.ttl(key) > 0


async def test_without_redis_each_process_counts_for_itself() -> None:
    nowhere = Redis.from_url("redis://127.0.0.1:9")
    rates = Rates(nowhere, window_s=3600)
    assert await refused(rates, "ada", times=3) == 1
    with pytest.raises(TooMany) as refusal:
        await rates.take("x", "ada", limit=2)
    assert 1 <= int(refusal.value.headers["Retry-After"]) <= 3600
    await nowhere.aclose()


# --- who is one client


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("/run/chatd.sock", "unknown"),
        ("x" * 300, "unknown"),
    ],
)
def test_a_client_is_an_address_or_a_network_of_them(host: str, client: str) -> None:
    assert client_of(HTTPConnection({"type": "http", "client": (host, 1)})) == client


def test_a_socket_without_addresses_is_one_client() -> None:
    assert client_of(HTTPConnection({"type": "http", "client": None})) == "unknown"


# --- pages that nobody has to be signed in for


@pytest.fixture
async def provider() -> AsyncGenerator[Provider]:
    async with providing() as provider:
        yield provider


@pytest.fixture
async def issuer() -> AsyncGenerator[Issuer]:
    async with serving_issuer() as issuer:
        yield issuer


@pytest.fixture
def settings(settings: Settings, provider: Provider) -> Settings:
    changes = {
        "oidc_issuer": provider.url,
        "oidc_client_id": CLIENT_ID,
        "oidc_client_secret": SecretStr(CLIENT_SECRET),
    }
    return settings.model_copy(update=changes)


@pytest.fixture
def few(app: FastAPI, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Visits, in a window that does not end while a test runs."""
    monkeypatch.setattr("chatd.api.rates.VISITS_A_MINUTE", FEW)
    app.state.parts = replace(app.state.parts, rates=Rates(redis, window_s=86_400))


def come_from(app: FastAPI, address: str) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=app, client=(address, 1))
    return httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


async def flood(http: httpx2.AsyncClient, path: str) -> httpx2.Response:
    """The answer to one visit too many."""
    answers = [await http.get(path) for _ in range(FEW + 1)]
    assert [answer.status_code == 429 for answer in answers] == [False] * FEW + [True]
    return answers[-1]


async def sign_in(http: httpx2.AsyncClient) -> int:
    away = await http.get(f"{BASE}/login")
    if away.status_code != 303:
        return away.status_code
    async with httpx2.AsyncClient() as outside:
        back = urlsplit((await outside.get(away.headers["location"])).headers["location"])
    return (await http.get(f"{back.path}?{back.query}")).status_code


@pytest.mark.parametrize("page", ["/login", "/login/callback?state=x&code=y"])
async def test_a_flood_of_sign_ins_locks_out_nobody_else(
    app: FastAPI, few: None, page: str
) -> None:
    async with come_from(app, FLOODER) as flooder, come_from(app, NEIGHBOUR) as neighbour:
        page_429 = await flood(flooder, BASE + page)
        assert 1 <= int(page_429.headers["retry-after"]) <= 86_400
        assert "Too many requests" in page_429.text
        assert page_429.headers["content-type"].startswith("text/html")
        assert await sign_in(neighbour) == 200
        assert await sign_in(flooder) == 429


@pytest.fixture
async def server(admin: Person, issuer: Issuer) -> Any:
    return await add(admin, issuer)


@pytest.mark.parametrize("page", ["consent?ticket=x", "callback?state=x&code=y"])
async def test_a_flood_of_visits_keeps_nobody_else_from_connecting(
    app: FastAPI, few: None, server: Any, member: Person, page: str
) -> None:
    path = f"{BASE}/mcp/servers/{server['id']}/oauth2/{page}"
    async with come_from(app, FLOODER) as flooder, come_from(app, NEIGHBOUR) as neighbour:
        page_429 = await flood(flooder, path)
        assert int(page_429.headers["retry-after"]) >= 1
        link = await ask_to_connect(member, server["id"])
        assert (await Browser(neighbour).connect(link)).status_code == 200


async def test_who_is_signed_in_does_not_suffer_from_neighbours_at_the_same_address(
    app: FastAPI, few: None, server: Any, member: Person, db: Database
) -> None:
    path = f"{BASE}/mcp/servers/{server['id']}/oauth2/callback?state=x&code=y"
    async with db.transaction() as session:
        made = await create_session(session, member.user.id, seconds=600)
    async with come_from(app, FLOODER) as flooder, come_from(app, FLOODER) as http:
        browser = Browser(http)
        browser.hold(made)
        await flood(flooder, path)
        link = await ask_to_connect(member, server["id"])
        assert (await browser.connect(link)).status_code == 200
        statuses = [(await http.get(path)).status_code for _ in range(FEW)]
        assert statuses[-1] == 429  # their own floods count as well


@pytest.mark.parametrize(
    ("trusted", "statuses"), [("127.0.0.1", [400, 429, 400]), ("10.0.0.0/8", [400, 429, 429])]
)
async def test_a_proxy_tells_its_clients_apart_where_it_is_trusted(
    app: FastAPI, settings: Settings, few: None, trusted: str, statuses: list[int]
) -> None:
    proxies = settings.model_copy(update={"trusted_proxies": (ip_network(trusted),)})
    url = f"{BASE}/login/callback?state=x"

    async with (
        serving(app, proxies) as address,
        httpx2.AsyncClient(base_url=f"http://{address}") as http,
    ):

        async def visit(client: str) -> int:
            return (await http.get(url, headers={"x-forwarded-for": client})).status_code

        # What a client says of itself is left of what the proxy has seen.
        seen = [await visit(f"{NEIGHBOUR}, {FLOODER}") for _ in range(FEW + 1)]
        assert [seen[0], seen[-1], await visit(NEIGHBOUR)] == statuses


async def test_a_proxy_at_a_unix_socket_tells_its_clients_apart(
    app: FastAPI, settings: Settings, few: None, tmp_path: Path
) -> None:
    url, path = f"{BASE}/login/callback?state=x", str(tmp_path / "door")
    with socket(AF_UNIX) as door:
        door.bind(path)
        door.listen()
        transport = httpx2.AsyncHTTPTransport(uds=path)
        async with (
            running(server_config(app, settings, [door]), [door]),
            httpx2.AsyncClient(transport=transport, base_url="http://chatd") as http,
        ):

            async def visit(forwarded: str | None) -> int:
                headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
                return (await http.get(url, headers=headers)).status_code

            # Whom a client claims to be is no way round the limit.
            seen = [await visit(f"203.0.113.{n}, {FLOODER}") for n in range(FEW + 1)]
            assert (seen[0], seen[-1]) == (400, 429)
            assert [await visit(NEIGHBOUR), await visit(None)] == [400, 400]


# --- disconnecting


async def test_a_user_disconnects_so_often_and_no_more(
    app: FastAPI,
    redis: Redis,
    server: Any,
    admin: Person,
    member: Person,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chatd.api.oauth.CONNECTS_A_MINUTE", 2)
    app.state.parts = replace(app.state.parts, rates=Rates(redis, window_s=86_400))
    path = f"/mcp/servers/{server['id']}/oauth2/disconnect"
    answers = [await member.delete(path) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert (await admin.delete(path)).status_code == 200
