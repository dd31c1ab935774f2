"""A browser that is signed in: what its cookie is good for, and what other sites cannot do."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from chatd.settings import Settings
from chatd.store import users
from chatd.store.db import Database
from chatd.store.sessions import NewSession, create_session
from tests.api.conftest import BASE, Person, client, text
from tests.api.served import closing_code, heard, serving

OURS = "http://127.0.0.1:8000"
LISTED = "https://chat.example"
EVIL = "https://evil.example"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"cors_origins": (LISTED,)})


@dataclass(frozen=True)
class Browser:
    http: httpx2.AsyncClient
    user: users.User
    session: NewSession

    async def send(self, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(BASE + path, json=body, headers=named)

    async def me(self) -> httpx2.Response:
        return await self.http.get(f"{BASE}/users/me")

    @property
    def cookie(self) -> str:
        return self.http.cookies["chatd_session"]


@pytest.fixture
async def browser(app: FastAPI, db: Database, admin: Person) -> AsyncGenerator[Browser]:
    async with db.transaction() as session:
        made = await create_session(session, admin.user.id, seconds=3600)
    async with client(app) as http:
        http.cookies.set("chatd_session", f"{made.token}.{made.csrf}", domain="chatd.local")
        yield Browser(http, admin.user, made)


async def later(db: Database, minutes: float) -> None:
    """As if so much time had gone by."""
    await db.fetch(
        """UPDATE sessions SET rotated_at = rotated_at - make_interval(secs => $1 * 60),
            seen_at = seen_at - make_interval(secs => $1 * 60)""",
        minutes,
    )


# --- what it is good for


async def test_the_cookie_lets_its_user_in(browser: Browser) -> None:
    answer = await browser.me()
    assert answer.status_code == 200
    assert answer.json()["id"] == str(browser.user.id)
    assert answer.json()["csrf_token"] == browser.session.csrf
    assert answer.headers["cache-control"] == "no-store"
    chats = await browser.http.get(f"{BASE}/chats")
    assert chats.headers["cache-control"] == "private, no-cache"
    assert "Cookie" in chats.headers["vary"]


@pytest.mark.parametrize("value", ["", "x", "chatds_" + "x" * 43, "chatds_é.x", "a.b.c"])
async def test_any_other_value_does_not(app: FastAPI, value: str) -> None:
    async with client(app) as http:
        headers = {b"cookie": f"chatd_session={value}".encode()}
        answer = await http.get(f"{BASE}/users/me", headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("tossed", [b"\xa0chatd_session=%s", b"chatd_session=%s; chatd_session=x"])
async def test_what_a_neighbouring_host_has_set_does_not(
    app: FastAPI, browser: Browser, tossed: bytes
) -> None:
    async with client(app) as http:
        headers = {b"cookie": tossed % browser.cookie.encode()}
        answer = await http.get(f"{BASE}/users/me", headers=headers)
    assert answer.status_code == 401


async def test_a_token_counts_for_more(browser: Browser, member: Person) -> None:
    headers = {"authorization": f"Bearer {member.token}"}
    answer = await browser.http.get(f"{BASE}/users/me", headers=headers)
    assert (answer.json()["username"], answer.json()["csrf_token"]) == ("max", "")
    bad = await browser.http.get(f"{BASE}/users/me", headers={"authorization": "Bearer wrong"})
    assert bad.status_code == 401


async def test_a_suspended_users_session_is_over(browser: Browser, db: Database) -> None:
    async with db.transaction() as session:
        await users.create_user(session, "root", role="admin")
    async with db.transaction() as session:
        await users.update_user(session, browser.user.id, {"suspended": True})
    assert (await browser.me()).status_code == 401


# --- other sites


@pytest.mark.parametrize(
    "sender",
    [{"origin": OURS}, {"origin": LISTED}, {"sec_fetch_site": "same-origin"}],
)
async def test_our_pages_may_change_things(browser: Browser, sender: dict[str, str]) -> None:
    body = {"name": "of mine"}
    answer = await browser.send(
        "/users/me/tokens", body, x_csrf_token=browser.session.csrf, **sender
    )
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    "sender",
    [
        {},
        {"origin": EVIL},
        {"origin": "null"},
        {"origin": EVIL, "sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "none"},
    ],
)
async def test_pages_of_others_may_not(
    browser: Browser, db: Database, sender: dict[str, str]
) -> None:
    proof = browser.session.csrf
    answer = await browser.send("/users/me/tokens", {"name": "x"}, x_csrf_token=proof, **sender)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert len(await db.fetch("SELECT 1 FROM api_tokens")) == 1


@pytest.mark.parametrize("proof", [None, "", "wrong", "é"])
async def test_without_the_proof_nothing_is_changed(browser: Browser, proof: str | None) -> None:
    headers = {b"origin": OURS.encode()}
    if proof is not None:
        headers[b"x-csrf-token"] = proof.encode()
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = await browser.http.request(
            method, f"{BASE}/users/{browser.user.id}", headers=headers
        )
        assert answer.status_code in (403, 405), method
    answer = await browser.http.patch(f"{BASE}/users/me", json={"name": "x"}, headers=headers)
    assert (answer.status_code, "X-CSRF-Token" in answer.json()["message"]) == (403, True)


async def test_a_token_needs_no_proof(browser: Browser, member: Person) -> None:
    headers = {"authorization": f"Bearer {member.token}", "origin": EVIL}
    answer = await browser.http.patch(f"{BASE}/users/me", json={"name": "New"}, headers=headers)
    assert answer.status_code == 200


async def test_listed_pages_may_send_the_cookie_and_read_the_answer(browser: Browser) -> None:
    headers = {"origin": LISTED, "access-control-request-method": "POST"}
    asked = {"access-control-request-headers": "x-csrf-token"}
    preflight = await browser.http.options(f"{BASE}/users/me", headers=headers | asked)
    assert preflight.headers["access-control-allow-credentials"] == "true"
    assert preflight.headers["access-control-allow-origin"] == LISTED
    foreign = await browser.http.get(f"{BASE}/users/me", headers={"origin": EVIL})
    assert "access-control-allow-origin" not in foreign.headers


# --- rotation


async def test_the_cookie_changes_now_and_then(browser: Browser, db: Database) -> None:
    before = browser.cookie
    await browser.me()
    await later(db, 16)
    answer = await browser.me()
    assert "; HttpOnly; SameSite=Lax" in answer.headers["set-cookie"]
    assert browser.cookie != before
    after = await browser.me()
    assert after.json()["csrf_token"] == browser.session.csrf
    assert "set-cookie" not in after.headers


async def test_a_former_cookie_ends_the_session_for_both_who_hold_it(
    app: FastAPI, browser: Browser, db: Database
) -> None:
    stolen = browser.cookie
    await later(db, 16)
    for _ in range(2):
        await browser.me()  # the second one shows the new cookie
    async with client(app, cookie=f"chatd_session={stolen}") as thief:
        assert (await thief.get(f"{BASE}/users/me")).status_code == 200  # within the minute
        assert (await browser.me()).status_code == 200
        await later(db, 11)
        headers = {"x-request-id": "the-theft"}
        for _ in range(2):
            assert (await thief.get(f"{BASE}/users/me", headers=headers)).status_code == 401
    assert (await browser.me()).status_code == 401
    assert await reuses(db) == [(None, "the-theft", "session", str(browser.session.id))]


async def test_a_thief_who_was_first_to_go_on_is_out_when_the_user_comes_back(
    app: FastAPI, browser: Browser, db: Database
) -> None:
    await later(db, 16)
    async with client(app) as thief:
        thief.cookies.set("chatd_session", browser.cookie, domain="chatd.local")
        for _ in range(2):
            assert (await thief.get(f"{BASE}/users/me")).status_code == 200
        await later(db, 11)
        assert (await browser.me()).status_code == 401
        assert (await thief.get(f"{BASE}/users/me")).status_code == 401
    assert len(await reuses(db)) == 1


async def test_a_former_cookie_on_the_way_to_connect_ends_the_session_too(
    browser: Browser, db: Database
) -> None:
    former = browser.cookie
    await later(db, 16)
    for _ in range(2):
        await browser.me()
    await later(db, 11)
    path = f"{BASE}/mcp/servers/{browser.user.id}/oauth2/connect"
    newest = browser.cookie
    browser.http.cookies.set("chatd_session", former, domain="chatd.local")
    assert (await browser.http.get(path)).status_code == 401
    browser.http.cookies.set("chatd_session", newest, domain="chatd.local")
    assert (await browser.me()).status_code == 401
    assert len(await reuses(db)) == 1


@dataclass(frozen=True)
class Slow:
    """A request whose body has come in half."""

    answer: asyncio.Task[httpx2.Response]
    rest: asyncio.Event


@asynccontextmanager
async def half_sent(browser: Browser, path: str, kind: str) -> AsyncGenerator[Slow]:
    """Told apart by the first read: the application has then done all that it does before."""
    rest, reading = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncGenerator[bytes]:
        yield b'{"content": [{"type": "text", "text": "hi '
        reading.set()
        await rest.wait()
        yield b'"}]}'

    headers = {"X-CSRF-Token": browser.session.csrf, "Origin": OURS, "Content-Type": kind}
    sending = browser.http.post(BASE + path, content=body(), headers=headers)
    async with asyncio.TaskGroup() as tasks:
        slow = Slow(tasks.create_task(sending), rest)
        try:
            async with asyncio.timeout(20):
                await reading.wait()
            yield slow
        finally:
            rest.set()


async def test_a_slow_answer_overwrites_no_newer_cookie(
    browser: Browser, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await browser.me()
    await later(db, 16)
    async with half_sent(browser, "/chats/files?name=a.txt", "text/plain") as upload:
        await later(db, 1.2)
        for _ in range(2):
            await browser.me()  # another tab: the cookie that the upload was given is lost to it
        newest = browser.cookie
        monkeypatch.setattr("chatd.api.session_cookie.monotonic", lambda: time.monotonic() + 72)
        upload.rest.set()
        answer = await upload.answer
    assert (answer.status_code, "set-cookie" in answer.headers) == (201, False)
    assert browser.cookie == newest
    assert (await browser.me()).status_code == 200
    assert await reuses(db) == []


async def test_a_slow_answer_still_takes_the_cookie_away(
    browser: Browser, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await browser.me()
    await later(db, 16)
    monkeypatch.setattr("chatd.api.session_cookie.monotonic", lambda: time.monotonic() + 72)
    answer = await browser.send("/logout", origin=OURS, x_csrf_token=browser.session.csrf)
    assert "Max-Age=0" in answer.headers["set-cookie"]


async def test_a_request_that_was_slow_to_come_in_ends_no_session(
    browser: Browser, db: Database
) -> None:
    await browser.me()
    async with half_sent(browser, "/chats", "application/json") as slow:
        await later(db, 16)
        for _ in range(2):
            await browser.me()
        await later(db, 2)
        slow.rest.set()
        assert (await slow.answer).status_code == 401
    assert (await browser.me()).status_code == 200
    assert await reuses(db) == []


async def reuses(db: Database) -> list[Any]:
    rows = await db.fetch(
        """SELECT actor_id, request_id, target_type, target_id FROM audit_log
        WHERE action = 'session_reuse'"""
    )
    return [tuple(row.values()) for row in rows]


@pytest.mark.parametrize("proof", ["", ".", ".wrong", "." + "x" * 43])
async def test_a_cookie_without_its_proof_is_none_and_is_not_made_worse(
    app: FastAPI, browser: Browser, db: Database, proof: str
) -> None:
    await later(db, 16)
    stripped = f"chatd_session={browser.session.token}{proof}"
    async with client(app, cookie=stripped) as http:
        answer = await http.get(f"{BASE}/users/me")
    assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
    await browser.me()
    answer = await browser.me()
    assert (answer.status_code, answer.json()["csrf_token"]) == (200, browser.session.csrf)


# --- streams


@pytest.fixture
async def address(app: FastAPI, settings: Settings) -> AsyncGenerator[str]:
    async with serving(app, settings) as address:
        yield address


@pytest.fixture
async def chat(model: str, admin: Person) -> str:
    return (await admin.post("/chats", {"content": text("hello")})).json()["id"]


def socket_of(address: str, browser: Browser, chat: str, **headers: str) -> Any:
    sent = {"Cookie": f"chatd_session={browser.cookie}", **headers}
    return connect(
        f"ws://{address}{BASE}/chats/{chat}/stream",
        additional_headers=sent,
        user_agent_header=None,
        proxy=None,
    )


@pytest.mark.parametrize("headers", [{"Origin": EVIL}, {"Origin": "null"}, {}])
async def test_pages_of_others_open_no_socket(
    address: str, browser: Browser, chat: str, headers: dict[str, str]
) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with socket_of(address, browser, chat, **headers):
            pass
    assert caught.value.response.status_code == 403


@pytest.mark.parametrize("origin", [OURS, LISTED])
async def test_ours_do_without_a_token(
    address: str, browser: Browser, chat: str, origin: str
) -> None:
    async with socket_of(address, browser, chat, Origin=origin) as socket:
        await heard(socket, "status")


async def test_signing_out_ends_the_streams_of_that_session_alone(
    app: FastAPI, address: str, browser: Browser, chat: str, db: Database
) -> None:
    async with db.transaction() as session:
        other = await create_session(session, browser.user.id, seconds=3600)
    async with client(app) as http:
        http.cookies.set("chatd_session", f"{other.token}.{other.csrf}")
        elsewhere = Browser(http, browser.user, other)
        async with (
            socket_of(address, browser, chat, Origin=OURS) as ours,
            socket_of(address, elsewhere, chat, Origin=OURS) as theirs,
        ):
            await heard(ours, "status")
            await heard(theirs, "status")
            answer = await browser.send("/logout", origin=OURS, x_csrf_token=browser.session.csrf)
            assert (answer.status_code, answer.json()) == (200, {"logout_url": ""})
            assert await closing_code(ours) == 1008
            assert theirs.close_code is None
            assert len(app.state.parts.permits._held) == 1


@pytest.mark.parametrize(
    "over",
    ["expires_at = clock_timestamp()", "revoked_at = clock_timestamp()"],
)
async def test_a_session_that_is_over_ends_its_streams(
    app: FastAPI, address: str, browser: Browser, chat: str, db: Database, over: str
) -> None:
    async with socket_of(address, browser, chat, Origin=OURS) as socket:
        await heard(socket, "status")
        await db.fetch(f"UPDATE sessions SET {over}")
        await app.state.parts.people.revoked(browser.user.id)
        assert await closing_code(socket) == 1008


# --- without a login


@pytest.mark.parametrize("path", ["/login", "/login/callback?state=x&code=y"])
async def test_where_no_login_is_configured_there_is_none(
    anonymous: httpx2.AsyncClient, path: str
) -> None:
    answer = await anonymous.get(BASE + path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.json()["message"] == "No login is configured."
