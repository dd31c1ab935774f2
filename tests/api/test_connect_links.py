"""Where a user is told to connect an account: lists, a chat's tools, what a turn waits for."""

from typing import Any
from uuid import UUID

import pytest

from chatd.core.items import NewItem
from chatd.store.db import Database
from tests.api.conftest import Person
from tests.api.test_items import parked
from tests.api.test_tools import add, chat_of, tools_of
from tests.credentials.accounts import keep
from tests.credentials.rotating import Rotating

OAUTH2 = {
    "auth_type": "oauth2",
    "oauth2_client_id": "chatd",
    "oauth2_auth_url": "https://sso.example/authorize",
    "oauth2_token_url": "https://sso.example/token",
}


@pytest.fixture
async def notion(admin: Person, model: str) -> str:
    return await add(admin, "notion", "http://127.0.0.1:9/mcp", **OAUTH2)


async def connect(db: Database, person: Person, server: str | None) -> None:
    me = UUID((await person.get("/users/me")).json()["id"])
    server_id = UUID(server) if server else None
    authority = Rotating(60)
    await keep(db, authority, authority.grant(), server_id=server_id, user_id=me)


async def break_off(db: Database, **columns: str) -> None:
    for column, value in columns.items():
        await db.fetch(f"UPDATE oauth_tokens SET {column} = $1", value)


def link(server: str) -> str:
    return f"/api/experimental/mcp/servers/{server}/oauth2/connect"


async def listed(person: Person, server: str) -> tuple[bool, str | None, str | None]:
    (view,) = (await person.get("/mcp/servers")).json()
    alone = (await person.get(f"/mcp/servers/{server}")).json()
    assert alone == view
    return view["auth_connected"], view["needs_reauth"], view["connect_url"]


async def dropped(person: Person) -> Any:
    tools = await tools_of(person, await chat_of(person))
    (drop,) = [drop for drop in tools["dropped"] if drop["server_id"]]
    return drop


async def test_the_list_links_to_what_its_reader_has_not_connected(
    admin: Person, member: Person, notion: str, db: Database
) -> None:
    assert await listed(member, notion) == (False, None, link(notion))
    await connect(db, member, notion)
    assert await listed(member, notion) == (True, None, None)
    assert await listed(admin, notion) == (False, None, link(notion))


async def test_the_list_links_to_what_has_to_be_connected_again_or_for_more(
    member: Person, notion: str, db: Database
) -> None:
    await connect(db, member, notion)
    await break_off(db, wanted_scopes="pages:write")
    assert await listed(member, notion) == (True, None, link(notion))
    await break_off(db, needs_reauth="invalid_grant")
    assert await listed(member, notion) == (False, "invalid_grant", link(notion))


async def test_a_login_has_no_link(admin: Person, member: Person, model: str) -> None:
    server = await add(admin, "mine", "https://mine.example/mcp", auth_type="user_oidc")
    assert await listed(member, server) == (False, None, None)
    drop = await dropped(member)
    assert (drop["reason"], drop["connect_url"], drop["needs_reauth"]) == (
        "auth_required", None, None
    )  # fmt: skip
    assert "Sign in" in drop["message"]


async def test_a_chats_tools_link_to_the_server_that_is_missing(
    member: Person, notion: str, db: Database
) -> None:
    drop = await dropped(member)
    assert (drop["name"], drop["reason"], drop["connect_url"]) == (
        "notion", "auth_required", link(notion)
    )  # fmt: skip
    assert drop["message"] == "Connect your account to use this server."
    await connect(db, member, notion)
    await break_off(db, needs_reauth="client_changed")
    drop = await dropped(member)
    assert (drop["needs_reauth"], drop["connect_url"]) == ("client_changed", link(notion))
    assert "again" in drop["message"]


async def test_a_turn_that_waits_for_an_account_can_be_told_to_go_on_without(
    member: Person, notion: str, db: Database
) -> None:
    data = {"server_id": notion, "server": "notion", "connect_url": link(notion)}
    chat, (item,) = await parked(db, member, notion, NewItem("auth", data, 600))
    assert (item["kind"], item["connect_url"]) == ("auth", link(notion))
    path = f"/chats/{chat}/auth/{item['id']}"
    for wrong in ({}, {"action": "connected"}):
        assert (await member.post(path, wrong)).status_code == 400
    other = await member.post(f"/chats/{chat}/approvals/{item['id']}", {"decision": "deny"})
    assert other.status_code == 404
    first = await member.post(path, {"action": "skip"})
    assert (first.status_code, first.json()["state"]) == (200, "answered")
    assert (await member.post(path, {"action": "skip"})).json() == first.json()
    assert (await member.get(f"/chats/{chat}")).json()["status"] == "pending"
