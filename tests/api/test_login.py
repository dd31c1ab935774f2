"""Signing in with an OpenID provider, in a browser: there, back, and out again."""

import json
import logging
from collections.abc import AsyncGenerator, Generator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import jwt
import pytest
import structlog
from fastapi import FastAPI
from pydantic import SecretStr

from chatd import logs
from chatd.api.app import create_app
from chatd.settings import Settings
from chatd.store.db import Database
from tests.api.conftest import BASE, Person, client
from tests.api.oidc_provider import CANARY, CLIENT_ID, CLIENT_SECRET, Provider, providing

ORIGIN = "http://127.0.0.1:8000"
"""Of the access URL of tests."""


@pytest.fixture
async def provider() -> AsyncGenerator[Provider]:
    async with providing() as provider:
        yield provider


@pytest.fixture
def settings(settings: Settings, provider: Provider) -> Settings:
    changes = {
        "oidc_issuer": provider.url,
        "oidc_client_id": CLIENT_ID,
        "oidc_client_secret": SecretStr(CLIENT_SECRET),
    }
    return settings.model_copy(update=changes)


class Browser:
    """Its own cookies, no redirects, and the headers that browsers add."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http

    async def open(self, path: str) -> httpx2.Response:
        return await self.http.get(path)

    async def leave(self, return_to: str = "") -> str:
        """Where the provider sends it back to."""
        answer = await self.http.get(f"{BASE}/login", params={"return_to": return_to})
        assert answer.status_code == 303, answer.text
        async with httpx2.AsyncClient() as outside:
            away = await outside.get(answer.headers["location"])
        url = urlsplit(away.headers["location"])
        assert f"{url.scheme}://{url.netloc}" == ORIGIN
        return f"{url.path}?{url.query}"

    async def sign_in(self, return_to: str = "") -> httpx2.Response:
        return await self.open(await self.leave(return_to))

    async def me(self) -> httpx2.Response:
        return await self.open(f"{BASE}/users/me")

    async def send(self, path: str, body: Any = None) -> httpx2.Response:
        """As a page of ours does."""
        proof = (await self.me()).json()["csrf_token"]
        headers = {"origin": ORIGIN, "x-csrf-token": proof}
        return await self.http.post(BASE + path, json=body, headers=headers)

    @property
    def cookie(self) -> str:
        return self.http.cookies["chatd_session"]


@pytest.fixture
async def browser(app: FastAPI) -> AsyncGenerator[Browser]:
    async with client(app) as http:
        yield Browser(http)


@pytest.fixture
def lines() -> Generator[list[Any]]:
    written: list[Any] = []
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers, root.level
    logs.configure("json", "debug", write=lambda line: written.append(json.loads(line)))
    yield written
    logging.captureWarnings(capture=False)
    structlog.configure(**before)
    root.handlers = handlers
    root.setLevel(level)


# --- there and back


async def test_who_comes_back_is_signed_in(browser: Browser) -> None:
    answer = await browser.sign_in()
    assert answer.status_code == 200
    assert "You are signed in" in answer.text
    me = (await browser.me()).json()
    assert (me["username"], me["role"]) == ("grace.hopper", "member")
    assert len(me["csrf_token"]) >= 32


async def test_the_browser_goes_where_it_was_going(browser: Browser) -> None:
    answer = await browser.sign_in("/chat?id=7")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{ORIGIN}/chat?id=7")


@pytest.mark.parametrize(
    "path",
    ["https://evil.example", "//evil.example", "/\\evil.example", "evil", "javascript:alert(1)"],
)
async def test_nobody_is_sent_to_another_site(browser: Browser, path: str) -> None:
    answer = await browser.http.get(f"{BASE}/login", params={"return_to": path})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


async def test_cookies_are_for_us_alone(browser: Browser) -> None:
    begun = await browser.open(f"{BASE}/login")
    for answer in (begun, await browser.sign_in()):
        (cookie, *_) = answer.headers.get_list("set-cookie")
        assert "; Path=/; HttpOnly; SameSite=Lax" in cookie
        assert "Domain" not in cookie
    assert begun.headers["cache-control"] == "no-store"


async def test_over_https_no_other_host_can_set_them(
    settings: Settings, provider: Provider
) -> None:
    app = create_app(settings.model_copy(update={"access_url": "https://chatd.example"}))
    async with app.router.lifespan_context(app), client(app) as http:
        begun = await http.get(f"{BASE}/login")
        flow_cookie = begun.headers["set-cookie"].partition(";")[0]
        async with httpx2.AsyncClient() as outside:
            away = await outside.get(begun.headers["location"])
        back = urlsplit(away.headers["location"])
        assert back.netloc == "chatd.example"
        headers = {"cookie": flow_cookie}
        answer = await http.get(f"{back.path}?{back.query}", headers=headers)
        cookie = answer.headers.get_list("set-cookie")[0]
        value = cookie.partition("=")[2].partition(";")[0]
        statuses = [
            (await http.get(f"{BASE}/users/me", headers={"cookie": f"{name}={value}"})).status_code
            for name in ("__Host-chatd_session", "chatd_session")
        ]
    assert flow_cookie.startswith("__Host-chatd_login_")
    assert cookie.startswith("__Host-chatd_session=")
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax; Secure")
    assert statuses == [200, 401]


async def test_two_tabs_do_not_disturb_each_other(browser: Browser) -> None:
    first, second = await browser.leave("/one"), await browser.leave("/two")
    answers = [await browser.open(path) for path in (first, second)]
    assert [each.headers["location"] for each in answers] == [f"{ORIGIN}/one", f"{ORIGIN}/two"]
    assert list(browser.http.cookies) == ["chatd_session"]


async def test_a_look_ahead_begins_nothing(browser: Browser, db: Database) -> None:
    answer = await browser.http.get(f"{BASE}/login", headers={"sec-purpose": "prefetch"})
    assert answer.status_code == 503
    assert await db.fetch("SELECT 1 FROM oauth_states") == []


# --- what does not work


async def test_an_answer_without_its_cookie_signs_nobody_in(app: FastAPI, browser: Browser) -> None:
    path = await browser.leave()
    async with client(app) as victim:
        answer = await victim.get(path)
        assert answer.status_code == 400
        assert (await victim.get(f"{BASE}/users/me")).status_code == 401
    assert "was not begun in this browser" in answer.text


async def test_an_answer_works_once(browser: Browser, provider: Provider) -> None:
    path = await browser.leave()
    first, again = await browser.open(path), await browser.open(path)
    assert (first.status_code, again.status_code) == (200, 400)
    assert len(provider.forms) == 1
    assert (await browser.me()).status_code == 200


@pytest.mark.parametrize("more", ["&state=x", "&code=x", "&error=access_denied&error=x"])
async def test_no_parameter_may_come_twice(browser: Browser, more: str) -> None:
    assert (await browser.open(await browser.leave() + more)).status_code == 400


async def test_who_says_no_at_the_provider_is_told_so(browser: Browser) -> None:
    path = urlsplit(await browser.leave())
    state = dict(parse_qsl(path.query))["state"]
    answer = await browser.open(f"{path.path}?state={state}&error=access_denied")
    assert answer.status_code == 403
    assert "You were not signed in" in answer.text


async def test_nothing_that_came_is_shown(browser: Browser) -> None:
    answer = await browser.open(
        f"{BASE}/login/callback?state=<script>&error=<script>&error_description=<script>"
    )
    assert answer.status_code == 400
    assert "<script>" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_a_provider_that_is_away_is_a_page(browser: Browser, provider: Provider) -> None:
    provider.metadata = {"token_endpoint": None}
    answer = await browser.open(f"{BASE}/login")
    assert answer.status_code == 502
    assert "cannot be reached" in answer.text
    assert f'href="{ORIGIN}{BASE}/login"' in answer.text  # to try again


# --- the session


async def test_a_session_is_never_one_that_was_there_before(
    app: FastAPI, browser: Browser, db: Database
) -> None:
    await browser.sign_in()
    fixed = browser.cookie
    await browser.sign_in()
    assert browser.cookie != fixed
    async with client(app, cookie=f"chatd_session={fixed}") as former:
        assert (await former.get(f"{BASE}/users/me")).status_code == 401
    alive = await db.fetch("SELECT 1 FROM sessions WHERE revoked_at IS NULL")
    assert len(alive) == 1


async def test_signing_out_ends_it(browser: Browser, provider: Provider, db: Database) -> None:
    await browser.sign_in()
    cookie = browser.cookie
    answer = await browser.send("/logout")
    assert answer.status_code == 200, answer.text
    page, _, query = answer.json()["logout_url"].partition("?")
    asked = dict(parse_qsl(query))
    assert (page, asked.pop("client_id")) == (f"{provider.url}/end", CLIENT_ID)
    hint = jwt.decode(asked.pop("id_token_hint"), options={"verify_signature": False})
    assert (hint["sub"], asked) == (provider.claims["sub"], {})
    assert "chatd_session" not in browser.http.cookies
    browser.http.cookies.set("chatd_session", cookie, domain="chatd.local")
    assert (await browser.me()).status_code == 401
    rows = await db.fetch("SELECT action FROM audit_log ORDER BY id")
    assert [row["action"] for row in rows] == ["create", "sign_in", "sign_out"]


async def test_the_provider_may_send_the_browser_back_after_that(
    settings: Settings, provider: Provider
) -> None:
    back = "https://chat.example/bye?now=1"
    provider.metadata = {"end_session_endpoint": f"{provider.url}/end?tenant=a&client_id=other"}
    app = create_app(settings.model_copy(update={"oidc_post_logout_redirect_uri": back}))
    async with app.router.lifespan_context(app), client(app) as http:
        browser = Browser(http)
        await browser.sign_in()
        url: str = (await browser.send("/logout")).json()["logout_url"]
    asked = parse_qsl(urlsplit(url).query)
    assert [name for name, _ in asked] == [
        "tenant", "client_id", "id_token_hint", "post_logout_redirect_uri"
    ]  # fmt: skip
    assert dict(asked)["client_id"] == CLIENT_ID
    assert dict(asked)["post_logout_redirect_uri"] == back


@pytest.mark.parametrize("why", ["too long", "another key"])
async def test_signing_out_works_without_a_hint(
    browser: Browser, provider: Provider, db: Database, why: str
) -> None:
    if why == "too long":
        provider.in_token = {"groups": ["x" * 40] * 100}
    await browser.sign_in()
    if why == "another key":
        await db.fetch("UPDATE sessions SET id_token_key_id = 'lost'")
    answer = await browser.send("/logout")
    assert answer.json() == {"logout_url": f"{provider.url}/end?client_id={CLIENT_ID}"}


async def test_a_provider_without_such_a_page_has_no_link(
    browser: Browser, provider: Provider
) -> None:
    provider.metadata = {"end_session_endpoint": None}
    await browser.sign_in()
    assert (await browser.send("/logout")).json() == {"logout_url": ""}


async def test_a_token_has_no_session_to_end(member: Person) -> None:
    answer = await member.post("/logout", None)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_no_secret_is_in_any_log_answer_or_row(
    browser: Browser, provider: Provider, lines: list[Any], db: Database
) -> None:
    shown = [await browser.sign_in("/x")]
    cookie = browser.cookie
    shown += [await browser.me(), await browser.send("/logout")]
    provider.in_token = {"nonce": "other"}
    shown.append(await browser.sign_in())
    logged = json.dumps(lines)
    assert "its nonce is another login's" in logged
    tables = ("audit_log", "sessions", "user_links", "oauth_states", "oauth_tokens", "users")
    rows = [str(row) for name in tables for row in await db.fetch(f"SELECT * FROM {name}")]
    told = logged + "".join(rows) + "".join(answer.text for answer in shown if answer.content)
    secrets = [cookie.partition(".")[0], *(form["code_verifier"] for form in provider.forms)]
    states = [asked["state"] for asked in provider.asked]
    assert [each for each in (CANARY, *secrets, *states) if each in told] == []
    assert cookie.partition(".")[2] not in logged + "".join(rows)
