"""An MCP server's authorization server is another one by now, or has forgotten our client: who
connects again is led to the right one, without an administrator (SEP-2352)."""

from collections.abc import AsyncGenerator
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from starlette.responses import JSONResponse, Response

from chatd.core.servers import visitor
from chatd.credentials import NotConnected, TokenService
from chatd.outbound import Outbound
from chatd.settings import Settings
from chatd.store.chat_servers import load_server
from chatd.store.db import Database
from chatd.store.secrets import KeyRing
from tests.api.browsing import Browser, ask_to_connect, browsing
from tests.api.conftest import Person
from tests.api.issuer import METADATA, RESOURCE, Issuer, serving_issuer
from tests.api.test_oauth_discovery import add, clients

UNAUTHORIZED = "UPDATE oauth_tokens SET needs_reauth = 'unauthorized', last_error = 'HTTP 401'"
NOTHING = "SELECT 1"
"""A server may refuse a token and say nothing of it: then the connection stands."""
SIX_MINUTES_LATER = (
    "UPDATE mcp_server_configs SET oauth2_looked_at = oauth2_looked_at - interval '6 minutes'"
)


@pytest.fixture
async def issuer() -> AsyncGenerator[Issuer]:
    async with serving_issuer() as issuer:
        yield issuer


@pytest.fixture
async def other() -> AsyncGenerator[Issuer]:
    """Where the server moves to."""
    async with serving_issuer() as other:
        yield other


@pytest.fixture
async def server(admin: Person, issuer: Issuer) -> Any:
    return await add(admin, issuer)


@pytest.fixture
async def browser(app: FastAPI) -> AsyncGenerator[Browser]:
    async with browsing(app) as browser:
        yield browser


def move(issuer: Issuer, other: Issuer) -> None:
    """The server, which stays where it is, names another authorization server."""
    told = {"resource": issuer.mcp_url, "authorization_servers": [f"{other.url}/"]}
    issuer.replies[RESOURCE] = lambda: JSONResponse(told)


def looks(issuer: Issuer) -> int:
    """How often the server was asked who issues for it."""
    return len(issuer.forms(RESOURCE))


@pytest.mark.parametrize("noted", [UNAUTHORIZED, NOTHING])
async def test_who_connects_again_is_led_to_the_new_authorization_server(
    member: Person,
    admin: Person,
    server: Any,
    issuer: Issuer,
    other: Issuer,
    browser: Browser,
    db: Database,
    noted: str,
) -> None:
    await browser.connect(await ask_to_connect(member, server["id"]))
    move(issuer, other)
    await db.fetch(noted)
    issuer.asked.clear()
    link = await ask_to_connect(member, server["id"])
    page = await browser.open(link)
    assert other.url.removeprefix("http://") in page.text
    assert (await browser.connect(link)).status_code == 200
    (ours,) = other.provider.clients
    (token,) = await db.fetch("SELECT issuer, client_id, needs_reauth FROM oauth_tokens")
    assert tuple(token.values()) == (f"{other.url}/", ours, None)
    view = (await admin.get(f"/mcp/servers/{server['id']}")).json()
    assert (view["oauth2_issuer"], view["oauth2_client_id"]) == (f"{other.url}/", ours)
    # No authorization server hears of what belongs to the other.
    assert server["oauth2_client_id"] not in str(other.asked)
    assert {path for path, _ in issuer.asked} <= {"/mcp", RESOURCE}


async def test_a_move_is_noted_as_nobodys_and_the_former_client_is_kept_for_its_tokens(
    member: Person, server: Any, issuer: Issuer, other: Issuer, browser: Browser, db: Database
) -> None:
    await browser.connect(await ask_to_connect(member, server["id"]))
    move(issuer, other)
    await db.fetch(UNAUTHORIZED)
    await browser.open(await ask_to_connect(member, server["id"]))
    assert await clients(db) == [server["oauth2_client_id"]]
    (line,) = await db.fetch("SELECT actor_id FROM audit_log WHERE action = 'discover'")
    assert line["actor_id"] is None


async def test_no_more_is_asked_for_at_the_new_place_until_an_administrator_looks(
    member: Person, admin: Person, issuer: Issuer, other: Issuer, browser: Browser, db: Database
) -> None:
    made = await add(admin, issuer, oauth2_scopes="read")
    await browser.connect(await ask_to_connect(member, made["id"]))
    move(issuer, other)
    await db.fetch(UNAUTHORIZED)
    await browser.open(await ask_to_connect(member, made["id"]))
    view = (await admin.get(f"/mcp/servers/{made['id']}")).json()
    assert (view["oauth2_issuer"], view["oauth2_scopes"]) == (f"{other.url}/", "read")


async def test_at_the_same_authorization_server_everything_stays(
    member: Person, admin: Person, server: Any, issuer: Issuer, browser: Browser, db: Database
) -> None:
    await browser.connect(await ask_to_connect(member, server["id"]))
    await db.fetch(UNAUTHORIZED)
    before = looks(issuer)
    page = await browser.connect(await ask_to_connect(member, server["id"]))
    assert (page.status_code, looks(issuer)) == (200, before + 1)
    assert (await admin.get(f"/mcp/servers/{server['id']}")).json() == server
    assert len(issuer.provider.clients) == 1


async def test_an_endpoint_that_moved_is_read_anew_and_the_client_stays(
    member: Person, admin: Person, server: Any, issuer: Issuer, browser: Browser, db: Database
) -> None:
    await browser.connect(await ask_to_connect(member, server["id"]))
    issuer.replies[METADATA] = issuer.metadata(token_endpoint=f"{issuer.url}/v2/token")
    await db.fetch(UNAUTHORIZED)
    await browser.open(await ask_to_connect(member, server["id"]))
    view = (await admin.get(f"/mcp/servers/{server['id']}")).json()
    assert view["oauth2_token_url"] == f"{issuer.url}/v2/token"
    assert view["oauth2_client_id"] == server["oauth2_client_id"]


async def test_a_server_is_looked_at_once_in_a_while_whoever_asks(
    member: Person,
    admin: Person,
    server: Any,
    issuer: Issuer,
    browser: Browser,
    db: Database,
) -> None:
    for person in (member, admin):
        await browser.connect(await ask_to_connect(person, server["id"]))
    await db.fetch(UNAUTHORIZED)
    before, looked = looks(issuer), list[int]()
    for person in (member, admin, member):
        await browser.open(await ask_to_connect(person, server["id"]))
        looked.append(looks(issuer) - before)
    await db.fetch(SIX_MINUTES_LATER)
    await browser.open(await ask_to_connect(admin, server["id"]))
    assert [*looked, looks(issuer) - before] == [1, 1, 1, 2]


async def test_who_connects_for_the_first_time_waits_for_no_search(
    member: Person, admin: Person, server: Any, issuer: Issuer, browser: Browser
) -> None:
    before = looks(issuer)
    for person in (member, admin):
        await browser.connect(await ask_to_connect(person, server["id"]))
    assert looks(issuer) == before


async def test_a_server_that_cannot_be_searched_is_connected_as_it_was(
    member: Person, admin: Person, server: Any, issuer: Issuer, browser: Browser, db: Database
) -> None:
    await browser.connect(await ask_to_connect(member, server["id"]))
    for path in (RESOURCE, METADATA):
        issuer.replies[path] = lambda: Response(status_code=503)
    await db.fetch(UNAUTHORIZED)
    page = await browser.connect(await ask_to_connect(member, server["id"]))
    assert page.status_code == 200
    assert (await admin.get(f"/mcp/servers/{server['id']}")).json() == server


async def test_a_client_that_was_set_by_hand_stays_where_it_is(
    member: Person, admin: Person, issuer: Issuer, other: Issuer, browser: Browser, db: Database
) -> None:
    made = await add(admin, issuer)
    by_hand = {"oauth2_client_id": "by-hand", "oauth2_client_secret": ""}
    by_hand |= {name: made[name] for name in ("oauth2_auth_url", "oauth2_token_url")}
    registered = issuer.provider.clients.pop(made["oauth2_client_id"])
    public = {"client_secret": None, "token_endpoint_auth_method": "none"}
    issuer.provider.clients["by-hand"] = registered.model_copy(
        update={"client_id": "by-hand", **public}
    )
    stored = (await admin.patch(f"/mcp/servers/{made['id']}", by_hand)).json()
    page = await browser.connect(await ask_to_connect(member, made["id"]))
    assert page.status_code == 200, page.text
    move(issuer, other)
    await db.fetch(UNAUTHORIZED)
    before = looks(issuer)
    page = await browser.open(await ask_to_connect(member, made["id"]))
    assert issuer.url.removeprefix("http://") in page.text
    assert (await admin.get(f"/mcp/servers/{made['id']}")).json() == stored
    assert (looks(issuer), other.provider.clients) == (before, {})


async def test_a_client_that_was_just_renewed_is_replaced_where_the_issuer_is_another(
    member: Person, server: Any, issuer: Issuer, other: Issuer, browser: Browser, db: Database
) -> None:
    forgotten = UNAUTHORIZED.replace("HTTP 401", "invalid_client")
    await browser.connect(await ask_to_connect(member, server["id"]))
    await db.fetch(forgotten)
    await browser.connect(await ask_to_connect(member, server["id"]))
    assert len(issuer.forms("/register")) == 2
    move(issuer, other)
    await db.fetch(forgotten)
    page = await browser.open(await ask_to_connect(member, server["id"]))
    assert other.url.removeprefix("http://") in page.text
    assert (len(issuer.forms("/register")), len(other.provider.clients)) == (2, 1)


async def test_a_client_that_no_refresh_is_answered_for_is_registered_by_the_next_connect(
    member: Person,
    server: Any,
    issuer: Issuer,
    browser: Browser,
    db: Database,
    settings: Settings,
    tokens: TokenService,
) -> None:
    await browser.connect(await ask_to_connect(member, server["id"]))
    issuer.provider.clients.clear()
    await db.fetch("UPDATE oauth_tokens SET expires_at = clock_timestamp()")
    keys = KeyRing(settings.keys())
    known = await load_server(db, keys, UUID(server["id"]), member.user.id)
    with pytest.raises(NotConnected, match="client_changed"):
        await tokens.bearer(known, visitor(known, member.user.id))
    assert len(issuer.forms("/register")) == 1
    page = await browser.connect(await ask_to_connect(member, server["id"]))
    assert (page.status_code, len(issuer.forms("/register"))) == (200, 2)
    known = await load_server(db, keys, UUID(server["id"]), member.user.id)
    assert await tokens.bearer(known, visitor(known, member.user.id))


@pytest.fixture
async def tokens(db: Database, settings: Settings) -> AsyncGenerator[TokenService]:
    """As a worker has it."""
    outbound = Outbound(mcp_allowed=[ip_network("127.0.0.0/8")])
    service = TokenService(db, KeyRing(settings.keys()), outbound)
    yield service
    await service.close()
    await outbound.aclose()
