"""A user connects their account to an MCP server: link, consent, sign-in, back again."""

import re
from base64 import b64encode
from collections.abc import AsyncGenerator
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from starlette.responses import JSONResponse

from chatd.settings import Settings
from chatd.store.db import Database, load
from chatd.store.oauth_tokens import read_token_of
from chatd.store.secrets import KeyRing
from tests.api.browsing import ORIGIN, Browser, ask_to_connect, browsing, fields, query, sign_in
from tests.api.conftest import Person
from tests.api.issuer import Issuer, serving_issuer
from tests.api.test_oauth_discovery import add

REFUSED = "UPDATE oauth_tokens SET last_error = 'invalid_client', needs_reauth = 'client_changed'"
SIX_MINUTES_LATER = (
    "UPDATE mcp_server_configs SET oauth2_renewed_at = oauth2_renewed_at - interval '6 minutes'"
)


@pytest.fixture
async def issuer() -> AsyncGenerator[Issuer]:
    async with serving_issuer() as issuer:
        yield issuer


@pytest.fixture
async def server(admin: Person, issuer: Issuer) -> Any:
    return await add(admin, issuer)


@pytest.fixture
async def browser(app: FastAPI) -> AsyncGenerator[Browser]:
    async with browsing(app) as browser:
        yield browser


async def test_a_user_connects(
    admin: Person,
    member: Person,
    server: Any,
    issuer: Issuer,
    browser: Browser,
    db: Database,
    settings: Settings,
) -> None:
    assert (await member.get(f"/mcp/servers/{server['id']}")).json()["auth_connected"] is False
    answer = await browser.connect(await ask_to_connect(member, server["id"]))
    assert answer.status_code == 200, answer.text
    assert "is connected" in answer.text
    assert (await member.get(f"/mcp/servers/{server['id']}")).json()["auth_connected"] is True
    assert (await admin.get(f"/mcp/servers/{server['id']}")).json()["auth_connected"] is False
    token = await read_token_of(
        db, KeyRing(settings.keys()), server_id=UUID(server["id"]), user_id=member.user.id
    )
    assert token is not None
    assert token.access_token.get_secret_value() in issuer.provider.access
    assert (token.resource, token.scopes) == (issuer.mcp_url, "read write")
    row = await db.fetch_one("SELECT * FROM audit_log ORDER BY id DESC LIMIT 1")
    assert row is not None
    assert (row["action"], row["actor_id"]) == ("connect", member.user.id)
    assert load(row["after"])["user_id"] == str(member.user.id)


async def test_the_consent_page_says_who_where_and_what(
    member: Person, server: Any, issuer: Issuer, browser: Browser
) -> None:
    page = await browser.open(await ask_to_connect(member, server["id"]))
    host = issuer.url.removeprefix("http://")
    for told in ("Tickets", host, "read, write", member.user.username):
        assert told in page.text
    assert "<script" not in page.text
    (cookie,) = page.headers.get_list("set-cookie")
    assert cookie.endswith("; Max-Age=600; Path=/; HttpOnly; SameSite=Lax")


async def test_every_page_stays_out_of_frames_caches_and_referrers(
    member: Person, server: Any, browser: Browser
) -> None:
    link = await ask_to_connect(member, server["id"])
    consent = await browser.open(link)
    leaving = await browser.agree(consent)
    back = await sign_in(leaving.headers["location"])
    pages = [consent, await browser.open(back), await browser.open(back)]
    for page in (*pages, leaving):
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "no-referrer"
    for page in pages:
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


async def test_the_authorization_request_is_what_the_specification_wants(
    member: Person, server: Any, issuer: Issuer, browser: Browser
) -> None:
    asked = query(await browser.leave(await ask_to_connect(member, server["id"])))
    callback = f"{ORIGIN}/api/experimental/mcp/servers/{server['id']}/oauth2/callback"
    assert asked["response_type"] == "code"
    assert asked["client_id"] == server["oauth2_client_id"]
    assert asked["redirect_uri"] == callback
    assert asked["code_challenge_method"] == "S256"
    assert asked["resource"] == issuer.mcp_url
    assert asked["scope"] == "read write"


async def test_the_token_request_carries_verifier_resource_and_redirect_uri(
    member: Person, server: Any, issuer: Issuer, browser: Browser
) -> None:
    await browser.connect(await ask_to_connect(member, server["id"]))
    (form,) = issuer.forms("/token")
    assert len(form["code_verifier"]) >= 43
    assert form["resource"] == issuer.mcp_url
    assert form["redirect_uri"].endswith(f"{server['id']}/oauth2/callback")


async def test_the_popup_tells_its_opener_and_no_other_origin(
    member: Person, server: Any, browser: Browser
) -> None:
    page = await browser.connect(await ask_to_connect(member, server["id"]))
    assert f'data-server="{server["id"]}" data-origin="{ORIGIN}"' in page.text
    assert 'postMessage({type: "mcp-oauth2-complete", serverID: told.server}, told.origin)' in (
        page.text
    )
    policy = page.headers["content-security-policy"]
    for element in ("style", "script"):
        (text,) = re.findall(f"<{element}>(.*?)</{element}>", page.text, re.DOTALL)
        digest = b64encode(sha256(text.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy


async def test_a_full_page_goes_back_to_where_it_came_from(
    member: Person, server: Any, browser: Browser
) -> None:
    link = await ask_to_connect(member, server["id"], return_to="/chats/7?tab=tools")
    answer = await browser.connect(link)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"{ORIGIN}/chats/7?tab=tools"


async def test_the_same_browser_may_look_again(
    member: Person, server: Any, browser: Browser
) -> None:
    link = await ask_to_connect(member, server["id"])
    first, second = await browser.open(link), await browser.open(link)
    assert fields(first) == fields(second)
    assert (await browser.agree(second)).status_code == 303


async def test_a_look_ahead_uses_nothing_up(member: Person, server: Any, browser: Browser) -> None:
    link = await ask_to_connect(member, server["id"])
    ahead = await browser.open(link, **{"Sec-Purpose": "prefetch;prerender"})
    assert (ahead.status_code, "set-cookie" in ahead.headers) == (503, False)
    assert (await browser.connect(link)).status_code == 200


async def test_two_windows_of_one_browser_do_not_disturb_each_other(
    member: Person, server: Any, browser: Browser
) -> None:
    links = [await ask_to_connect(member, server["id"]) for _ in range(2)]
    pages = [await browser.open(link) for link in links]
    away = [(await browser.agree(page)).headers["location"] for page in pages]
    for url in away:
        assert (await browser.open(await sign_in(url))).status_code == 200


async def test_connecting_again_makes_another_connection(
    member: Person, server: Any, browser: Browser, db: Database
) -> None:
    ids: set[UUID] = set()
    for _ in range(2):
        await browser.connect(await ask_to_connect(member, server["id"]))
        (row,) = await db.fetch("SELECT id FROM oauth_tokens")
        ids.add(row["id"])
    assert len(ids) == 2


async def test_what_a_server_wanted_more_is_asked_for_the_next_time(
    member: Person, server: Any, browser: Browser, db: Database
) -> None:
    await browser.connect(await ask_to_connect(member, server["id"]))
    await db.fetch("UPDATE oauth_tokens SET wanted_scopes = 'read write delete'")
    page = await browser.open(await ask_to_connect(member, server["id"]))
    assert "read, write, delete" in page.text


async def test_who_did_not_allow_it_is_told_so(
    member: Person, server: Any, browser: Browser
) -> None:
    away = query(await browser.leave(await ask_to_connect(member, server["id"], return_to="/x")))
    back = f"{away['redirect_uri']}?error=access_denied&state={away['state']}"
    page = await browser.open(f"{back}&error_description=<b>evil</b>")
    assert (page.status_code, "was not allowed" in page.text) == (400, True)
    assert "evil" not in page.text
    assert f'href="{ORIGIN}/x"' in page.text


@pytest.mark.parametrize("status", [400, 500])
async def test_a_code_that_is_not_taken_says_nothing_of_why(
    member: Person, server: Any, issuer: Issuer, browser: Browser, status: int, db: Database
) -> None:
    told = {"error": "invalid_grant", "error_description": "s3cret of theirs"}
    issuer.replies["/token"] = lambda: JSONResponse(told, status)
    page = await browser.connect(await ask_to_connect(member, server["id"]))
    assert (page.status_code, "s3cret" in page.text) == (502, False)
    assert await db.fetch("SELECT 1 FROM oauth_tokens") == []


async def test_a_client_that_was_forgotten_is_registered_again(
    member: Person, admin: Person, server: Any, issuer: Issuer, browser: Browser
) -> None:
    page = await browser.open(await forgotten(member, server, browser, issuer))
    assert (page.status_code, "start once more" in page.text) == (502, True)
    view = (await admin.get(f"/mcp/servers/{server['id']}")).json()
    assert view["oauth2_client_id"] in issuer.provider.clients
    assert (await browser.connect(await ask_to_connect(member, server["id"]))).status_code == 200


async def test_who_forgets_every_client_is_not_given_new_ones_all_the_time(
    member: Person, server: Any, issuer: Issuer, browser: Browser, db: Database
) -> None:
    told: list[bool] = []
    for _ in range(2):
        page = await browser.open(await forgotten(member, server, browser, issuer))
        told.append("start once more" in page.text)
    await db.fetch(SIX_MINUTES_LATER)
    page = await browser.open(await forgotten(member, server, browser, issuer))
    assert [*told, "start once more" in page.text] == [True, False, True]


async def test_a_client_that_no_token_could_be_renewed_with_is_registered_again(
    member: Person, server: Any, issuer: Issuer, browser: Browser, db: Database
) -> None:
    """Its server would show a page of its own to a client that it does not know."""
    await browser.connect(await ask_to_connect(member, server["id"]))
    issuer.provider.clients.clear()
    await db.fetch(REFUSED)
    page = await browser.connect(await ask_to_connect(member, server["id"]))
    assert page.status_code == 200
    assert len(issuer.provider.clients) == 1
    (token,) = await db.fetch("SELECT client_id, needs_reauth FROM oauth_tokens")
    assert (token["needs_reauth"], {token["client_id"]}) == (None, set(issuer.provider.clients))


async def test_anybodys_refused_token_is_enough_to_register_again(
    admin: Person, member: Person, server: Any, issuer: Issuer, browser: Browser, db: Database
) -> None:
    await browser.connect(await ask_to_connect(member, server["id"]))
    issuer.provider.clients.clear()
    await db.fetch(REFUSED)
    assert (await browser.connect(await ask_to_connect(admin, server["id"]))).status_code == 200
    # The one that was refused is of a client that is not configured any more.
    await db.fetch(SIX_MINUTES_LATER)
    assert (await browser.connect(await ask_to_connect(admin, server["id"]))).status_code == 200
    assert len(issuer.forms("/register")) == 2


async def test_a_client_that_is_refused_once_more_is_kept_for_a_while(
    member: Person, server: Any, issuer: Issuer, browser: Browser, db: Database
) -> None:
    registered: list[int] = []
    for wait in ("", "", SIX_MINUTES_LATER):
        await browser.connect(await ask_to_connect(member, server["id"]))
        await db.fetch(REFUSED)
        if wait:
            await db.fetch(wait)
        await browser.open(await ask_to_connect(member, server["id"]))
        registered.append(len(issuer.forms("/register")))
    assert registered == [2, 2, 3]


@pytest.mark.parametrize("source", ["manual", "metadata_document"])
async def test_only_a_client_that_was_registered_is_registered_again(
    member: Person, server: Any, issuer: Issuer, browser: Browser, db: Database, source: str
) -> None:
    await browser.connect(await ask_to_connect(member, server["id"]))
    await db.fetch(REFUSED)
    await db.fetch("UPDATE mcp_server_configs SET oauth2_client_source = $1", source)
    assert (await browser.connect(await ask_to_connect(member, server["id"]))).status_code == 200
    assert len(issuer.forms("/register")) == 1


async def test_the_consent_page_is_of_the_issuer_that_the_new_client_is_for(
    member: Person, server: Any, issuer: Issuer, browser: Browser, db: Database
) -> None:
    await browser.connect(await ask_to_connect(member, server["id"]))
    await db.fetch(REFUSED)
    await db.fetch("UPDATE mcp_server_configs SET oauth2_auth_url = 'https://former.example/'")
    page = await browser.open(await ask_to_connect(member, server["id"]))
    assert issuer.url.removeprefix("http://") in page.text
    assert "former.example" not in page.text


async def forgotten(member: Person, server: Any, browser: Browser, issuer: Issuer) -> str:
    """A way back to us, from a server that has lost our client meanwhile."""
    away = query(await browser.leave(await ask_to_connect(member, server["id"])))
    issuer.provider.clients.clear()
    return f"{away['redirect_uri']}?code=x&state={away['state']}"


async def test_only_servers_that_one_may_use_can_be_connected(
    admin: Person, member: Person, server: Any
) -> None:
    path = f"/mcp/servers/{server['id']}/oauth2/connect"
    await admin.patch(f"/mcp/servers/{server['id']}", {"enabled": False})
    assert (await member.post(path, {})).status_code == 404
    await admin.patch(f"/mcp/servers/{server['id']}", {"enabled": True, "auth_type": "none"})
    assert (await member.post(path, {})).status_code == 400
    unknown = "/mcp/servers/00000000-0000-7000-8000-000000000000/oauth2/connect"
    assert (await member.post(unknown, {})).status_code == 404


async def test_without_a_session_the_link_of_a_notice_says_how(
    server: Any, browser: Browser
) -> None:
    page = await browser.open(
        f"{ORIGIN}/api/experimental/mcp/servers/{server['id']}/oauth2/connect"
    )
    assert (page.status_code, "sign in" in page.text) == (401, True)


async def test_links_have_a_limit(member: Person, server: Any) -> None:
    path = f"/mcp/servers/{server['id']}/oauth2/connect"
    answers = [await member.post(path, {}) for _ in range(41)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert int(refused[0].headers["retry-after"]) <= 60
