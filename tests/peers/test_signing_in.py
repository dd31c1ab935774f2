"""Signing in with an OpenID provider that nobody here wrote, in a browser."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from tests.e2e.client import Client, call
from tests.e2e.fleet import Fleet, Process, registered
from tests.e2e.view import text_of
from tests.mcp.peer import Peer as ToolServer, running
from tests.peers.browser import sign_in
from tests.peers.programs import Peer, start_oidc_mock

SUBJECT = "248289761001"
NAME = "grace.hopper"
CLIENT_ID = "chatd"
COOKIE = "chatd_session"


@pytest.fixture(scope="module")
def provider(services_folder: Path) -> Generator[Peer]:
    claims = {"sub": SUBJECT, "preferred_username": NAME, "name": "Grace Hopper"}
    peer = asyncio.run(start_oidc_mock(services_folder, **claims))
    yield peer
    asyncio.run(peer.child.stop())


@pytest.fixture(scope="module")
def door(fleet: Fleet, provider: Peer) -> Generator[Process]:
    """One more front door, where users sign in."""
    settings = {
        "CHATD_OIDC_ISSUER": provider.url,
        "CHATD_OIDC_CLIENT_ID": CLIENT_ID,
        "CHATD_OIDC_CLIENT_SECRET": "known to both",
    }
    door = asyncio.run(fleet.api(**settings))
    fleet.apis.remove(door)
    yield door
    asyncio.run(door.child.stop())


@pytest.fixture
async def browser(door: Process) -> AsyncGenerator[Client]:
    """It has no token, only what cookies it is given; its page sends what our frontend's would."""
    async with Client(door.url, "") as browser:
        del browser.http.headers["Authorization"]
        browser.http.headers["Origin"] = door.url
        yield browser


async def _sign_in(browser: Client) -> None:
    page = await sign_in(browser.http, "/login", SUBJECT)
    assert (page.status_code, page.url.path.rpartition("/")[2]) == (200, "callback"), page.text
    assert "You are signed in" in page.text
    me = await browser.get("/users/me")
    browser.http.headers["X-CSRF-Token"] = me["csrf_token"]


async def test_who_comes_back_is_known_by_name(browser: Client) -> None:
    assert (await browser.http.get("/users/me")).status_code == 401
    await _sign_in(browser)
    first = await browser.get("/users/me")
    assert (first["username"], first["role"]) == (NAME, "member")
    assert list(browser.http.cookies) == [COOKIE]
    former = browser.http.cookies[COOKIE]
    await _sign_in(browser)
    again = await browser.get("/users/me")
    assert again["id"] == first["id"]
    assert browser.http.cookies[COOKIE] != former


async def test_a_turn_calls_tools_with_the_logins_token(
    worker: Process, admin: Client, browser: Client, provider: Peer
) -> None:
    await _sign_in(browser)
    async with (
        running(ToolServer()) as tools,
        registered(admin, "own", tools.url, auth_type="user_oidc") as server,
    ):
        place = f"/mcp/servers/{server['id']}"
        assert (await browser.get(place))["auth_connected"]
        assert not (await admin.get(place))["auth_connected"]
        turn, messages = await browser.run(
            call("own__add"), "/say done", mcp_server_ids=[server["id"]]
        )
    assert (turn["status"], turn["notices"]) == ("completed", [])
    assert text_of(messages[2]) == "ok"
    (called,) = [heard for heard in tools.heard if heard.method == "tools/call"]
    assert await _whose(provider, called.headers["authorization"]) == SUBJECT


async def _whose(provider: Peer, authorization: str) -> str:
    """What the provider says of a token."""
    async with httpx2.AsyncClient(trust_env=False, verify=False) as http:
        headers = {"Authorization": authorization}
        answer = await http.get(f"{provider.url}/userinfo", headers=headers)
    answer.raise_for_status()
    return answer.json()["sub"]


async def test_who_signs_out_is_out_and_is_led_to_the_providers_page(
    browser: Client, provider: Peer
) -> None:
    await _sign_in(browser)
    kept = browser.http.cookies[COOKIE]
    answer = await browser.http.post("/logout")
    assert answer.status_code == 200, answer.text
    assert COOKIE not in browser.http.cookies
    headers = {"Cookie": f"{COOKIE}={kept}"}
    assert (await browser.http.get("/users/me", headers=headers)).status_code == 401
    logout_url: str = answer.json()["logout_url"]
    url = urlsplit(logout_url)
    assert f"{url.scheme}://{url.netloc}" == provider.url
    assert parse_qs(url.query)["client_id"] == [CLIENT_ID]
    assert "End Session" in (await browser.http.get(logout_url)).text
