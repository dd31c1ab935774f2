"""What an MCP server that was broken into can have changed while no administrator looks: nothing
that brings it a code or a token, and no more registrations than one in five minutes."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.responses import JSONResponse, Response

from chatd.store.db import Database
from tests.api.browsing import Browser, ask_to_connect, browsing
from tests.api.conftest import Person
from tests.api.issuer import METADATA, RESOURCE, Issuer, serving_issuer
from tests.api.test_oauth_discovery import add
from tests.api.test_oauth_moved import UNAUTHORIZED, move

FORGOTTEN = UNAUTHORIZED.replace("HTTP 401", "invalid_client")

LATER = "UPDATE mcp_server_configs SET oauth2_renewed_at = oauth2_renewed_at - interval '1 hour'"


@pytest.fixture
async def issuer() -> AsyncGenerator[Issuer]:
    async with serving_issuer() as issuer:
        yield issuer


@pytest.fixture
async def other() -> AsyncGenerator[Issuer]:
    async with serving_issuer() as other:
        yield other


@pytest.fixture
async def browser(app: FastAPI) -> AsyncGenerator[Browser]:
    async with browsing(app) as browser:
        yield browser


def host(issuer: Issuer) -> str:
    return issuer.url.removeprefix("http://")


async def stored(admin: Person, server: Any) -> Any:
    return (await admin.get(f"/mcp/servers/{server['id']}")).json()


@pytest.mark.parametrize(
    "name",
    ["authorization_endpoint", "token_endpoint", "registration_endpoint", "revocation_endpoint"],
)
@pytest.mark.parametrize("noted", [UNAUTHORIZED, FORGOTTEN], ids=["unauthorized", "forgotten"])
async def test_nobody_is_moved_to_an_issuer_that_borrows_an_endpoint_but_by_an_administrator(
    member: Person,
    admin: Person,
    issuer: Issuer,
    other: Issuer,
    browser: Browser,
    db: Database,
    name: str,
    noted: str,
) -> None:
    server = await add(admin, issuer)
    await browser.connect(await ask_to_connect(member, server["id"]))
    move(issuer, other)
    path = name.removesuffix("_endpoint").replace("registration", "register")
    path = path.replace("revocation", "revoke").replace("authorization", "authorize")
    other.replies[METADATA] = other.metadata(**{name: f"{issuer.url}/{path}"})
    await db.fetch(noted)
    page = await browser.open(await ask_to_connect(member, server["id"]))
    assert (host(issuer) in page.text, host(other) in page.text) == (True, False)
    assert await stored(admin, server) == server
    assert (len(issuer.provider.clients), other.provider.clients) == (1, {})
    moved = await admin.post(f"/mcp/servers/{server['id']}/oauth2/discover", {})
    assert moved.json()["oauth2_issuer"] == f"{other.url}/"


async def test_whose_tokens_are_another_hosts_is_told_on_the_consent_page(
    member: Person, admin: Person, issuer: Issuer, other: Issuer, browser: Browser
) -> None:
    issuer.replies[METADATA] = issuer.metadata(token_endpoint=f"{other.url}/token")
    server = await add(admin, issuer)
    page = await browser.open(await ask_to_connect(member, server["id"]))
    assert (host(issuer) in page.text, host(other) in page.text) == (True, True)


async def test_no_refresh_token_is_revoked_elsewhere_than_at_the_issuer_that_is_pinned(
    member: Person, admin: Person, issuer: Issuer, other: Issuer, browser: Browser
) -> None:
    move(issuer, other)
    server = await add(admin, issuer, oauth2_issuer=f"{other.url}/")
    await browser.connect(await ask_to_connect(member, server["id"]))
    told = {"resource": issuer.mcp_url, "authorization_servers": [f"{issuer.url}/"]}
    issuer.replies[RESOURCE] = lambda: JSONResponse(told)
    issuer.replies[METADATA] = other.metadata(revocation_endpoint=f"{issuer.url}/revoke")
    await browser.connect(await ask_to_connect(member, server["id"]))
    assert (await stored(admin, server))["oauth2_issuer"] == f"{other.url}/"
    await member.delete(f"/mcp/servers/{server['id']}/oauth2/disconnect")
    assert issuer.forms("/revoke") == []


async def test_an_endpoint_of_the_same_issuer_leaves_its_host_by_an_administrator_alone(
    member: Person, admin: Person, issuer: Issuer, other: Issuer, browser: Browser, db: Database
) -> None:
    server = await add(admin, issuer)
    await browser.connect(await ask_to_connect(member, server["id"]))
    borrowed = f"{other.url}/authorize"
    issuer.replies[METADATA] = issuer.metadata(authorization_endpoint=borrowed)
    await db.fetch(FORGOTTEN)
    await browser.open(await ask_to_connect(member, server["id"]))
    assert await stored(admin, server) == server
    found = (await admin.post(f"/mcp/servers/{server['id']}/oauth2/discover", {})).json()
    assert found["oauth2_auth_url"] == borrowed
    # What an administrator has seen there is no change, and hinders none.
    issuer.provider.clients.clear()
    await db.fetch(LATER)
    await browser.open(await ask_to_connect(member, server["id"]))
    view = await stored(admin, server)
    assert view["oauth2_client_id"] in issuer.provider.clients
    assert view["oauth2_auth_url"] == borrowed


@pytest.mark.parametrize("noted", [UNAUTHORIZED, FORGOTTEN], ids=["unauthorized", "forgotten"])
async def test_endpoints_of_a_pinned_issuer_that_says_nothing_stay_where_an_administrator_saw_them(
    member: Person,
    admin: Person,
    issuer: Issuer,
    other: Issuer,
    browser: Browser,
    db: Database,
    noted: str,
) -> None:
    """Anybody may speak for it: at first, somebody looks."""
    other.replies[METADATA] = lambda: Response(status_code=404)
    name = other.url
    issuer.replies[METADATA] = issuer.metadata(issuer=name)
    server = await add(admin, issuer, oauth2_issuer=name)
    await browser.connect(await ask_to_connect(member, server["id"]))
    issuer.replies[METADATA] = issuer.metadata(issuer=name, token_endpoint=f"{issuer.url}/theirs")
    await db.fetch(noted)
    await browser.open(await ask_to_connect(member, server["id"]))
    assert await stored(admin, server) == server


async def test_many_pages_at_once_register_one_client(
    member: Person, admin: Person, issuer: Issuer, app: FastAPI, browser: Browser, db: Database
) -> None:
    server = await add(admin, issuer)
    await browser.connect(await ask_to_connect(member, server["id"]))
    await db.fetch(FORGOTTEN)
    links = [await ask_to_connect(member, server["id"]) for _ in range(8)]

    async def opened(link: str) -> int:
        async with browsing(app) as fresh:
            return (await fresh.open(link)).status_code

    assert await asyncio.gather(*map(opened, links)) == [200] * 8
    assert len(issuer.forms("/register")) == 2


async def test_a_registration_that_fails_counts_as_one_that_goes_well(
    member: Person, admin: Person, issuer: Issuer, browser: Browser, db: Database
) -> None:
    server = await add(admin, issuer)
    await browser.connect(await ask_to_connect(member, server["id"]))
    await db.fetch(FORGOTTEN)
    issuer.replies["/register"] = lambda: Response(status_code=503)
    tried = list[int]()
    for _ in range(3):
        await browser.open(await ask_to_connect(member, server["id"]))
        tried.append(len(issuer.forms("/register")) - 1)
    assert tried == [1, 1, 1]


async def test_what_an_administrator_has_registered_since_may_be_replaced_at_once(
    member: Person, admin: Person, issuer: Issuer, browser: Browser, db: Database
) -> None:
    server = await add(admin, issuer)
    await browser.connect(await ask_to_connect(member, server["id"]))
    await db.fetch(FORGOTTEN)
    await browser.connect(await ask_to_connect(member, server["id"]))
    place = f"/mcp/servers/{server['id']}/oauth2/discover"
    assert (await admin.post(place, {"register_client": True})).status_code == 200
    await browser.connect(await ask_to_connect(member, server["id"]))
    await db.fetch(FORGOTTEN)
    await browser.open(await ask_to_connect(member, server["id"]))
    assert len(issuer.forms("/register")) == 4
