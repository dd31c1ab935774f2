"""MCP server configs as the store keeps them."""

import os
from typing import Any
from uuid import UUID

import orjson
import pytest
from pydantic import SecretStr

from chatd.core.errors import BadRequest, Conflict, NotFound
from chatd.store import policy_state, servers
from chatd.store.db import Database
from chatd.store.secrets import KeyRing
from chatd.store.server_settings import ServerSettings
from chatd.store.server_views import View
from tests.seed import make_group, make_user

KEYS = KeyRing({"k1": os.urandom(32)})


def settings(**fields: Any) -> ServerSettings:
    plain: dict[str, Any] = {
        "display_name": "Tickets",
        "slug": "tickets",
        "transport": "streamable_http",
        "url": "https://tickets.example/mcp",
        "auth_type": "none",
        "availability": "default_off",
    }
    return ServerSettings(**(plain | fields))


API_KEY = {
    "auth_type": "api_key",
    "api_key_header": "X-Key",
    "api_key_value": SecretStr("very-secret"),
}
HEADERS = {
    "auth_type": "custom_headers",
    "custom_headers": {"X-One": SecretStr("first-secret"), "X-Two": SecretStr("second")},
}


async def create(db: Database, **fields: Any) -> View:
    async with db.transaction() as session:
        return await servers.create_server(session, KEYS, settings(**fields))


async def update(db: Database, server_id: str, **fields: Any) -> View:
    async with db.transaction() as session:
        return await servers.update_server(session, KEYS, UUID(server_id), settings(**fields))


async def secret(db: Database, column: str) -> str:
    columns = f"id, {column} AS c, {column}_key_id AS k"
    row = await db.fetch_one(f"SELECT {columns} FROM mcp_server_configs")
    assert row is not None
    place = {"table": "mcp_server_configs", "column": column}
    return KEYS.decrypt(row["c"], row["k"], row_id=row["id"], **place).get_secret_value()


async def test_secrets_go_in_and_do_not_come_out(db: Database) -> None:
    made = await create(db, **API_KEY)
    assert (made["has_api_key"], made["api_key_header"]) == (True, "X-Key")
    assert "very-secret" not in str(made)
    assert await secret(db, "api_key_value") == "very-secret"
    row = await db.fetch_one("SELECT s::text AS all FROM mcp_server_configs s")
    assert row is not None
    assert b"very-secret".hex() not in row["all"]
    assert "very-secret" not in row["all"]


async def test_custom_headers_are_one_secret(db: Database) -> None:
    made = await create(db, **HEADERS)
    assert made["has_custom_headers"] is True
    assert "X-One" not in str(made)
    assert orjson.loads(await secret(db, "custom_headers")) == {
        "X-One": "first-secret",
        "X-Two": "second",
    }


async def test_a_change_keeps_the_secret_and_counts_the_version(db: Database) -> None:
    made = await create(db, **API_KEY)
    after = await update(db, made["id"], **(API_KEY | {"api_key_value": None, "enabled": True}))
    assert (after["version"], after["enabled"], after["has_api_key"]) == (2, True, True)
    assert await secret(db, "api_key_value") == "very-secret"
    assert after["updated_at"] > made["updated_at"]


async def test_another_auth_type_forgets_the_secrets_of_the_old_one(db: Database) -> None:
    made = await create(db, **API_KEY)
    for fields in (HEADERS, API_KEY, {"auth_type": "none"}):
        after = await update(db, made["id"], **fields)
        assert after["has_api_key"] is (fields is API_KEY)
        assert after["has_custom_headers"] is (fields is HEADERS)
        assert after["api_key_header"] == ("X-Key" if fields is API_KEY else "")
    row = await db.fetch_one(
        """SELECT api_key_value, api_key_value_key_id, custom_headers, custom_headers_key_id
        FROM mcp_server_configs"""
    )
    assert row is not None
    assert set(row.values()) == {None}


async def test_a_slug_is_given_once(db: Database) -> None:
    made = await create(db)
    with pytest.raises(Conflict, match="config already exists"):
        await create(db)
    await create(db, slug="other")
    with pytest.raises(Conflict, match="slug already exists"):
        await update(db, made["id"], slug="other")


async def test_a_user_sees_the_enabled_ones_they_may_use(db: Database) -> None:
    ada, max_ = await make_user(db, "ada"), await make_user(db, "max")
    group = await make_group(db, "support", ada.user_id)
    hidden = await create(db, slug="b")
    shown = await create(db, slug="a", enabled=True)
    theirs = await create(db, slug="c", enabled=True, access="groups", group_ids=(group,))
    nobodys = await create(db, slug="d", enabled=True, access="groups")
    every = [shown, hidden, theirs, nobodys]
    seen = {None: every, ada.user_id: [shown, theirs], max_.user_id: [shown]}
    async with db.transaction() as session:
        for user_id, views in seen.items():
            assert await servers.list_servers(session, visible_to=user_id) == views
            for view in every:
                read = servers.get_server(session, UUID(view["id"]), visible_to=user_id)
                if view in views:
                    assert await read == view
                else:
                    with pytest.raises(NotFound):
                        await read


async def test_groups_are_replaced_as_a_whole(db: Database) -> None:
    first, second = await make_group(db, "first"), await make_group(db, "second")
    made = await create(db, access="groups", group_ids=(first, first))
    assert made["group_ids"] == [str(first)]
    changed = await update(db, made["id"], access="groups", group_ids=(second,))
    assert (changed["group_ids"], changed["version"]) == ([str(second)], 2)
    gone = UUID(int=1)
    with pytest.raises(BadRequest, match="group IDs") as refused:
        await update(db, made["id"], access="groups", group_ids=(second, gone))
    assert refused.value.detail == f"Invalid IDs: {gone}"


async def test_oauth_and_signing_secrets_are_kept_encrypted_and_forgotten(db: Database) -> None:
    oauth2 = {
        "auth_type": "oauth2",
        "oauth2_client_id": "chatd",
        "oauth2_client_secret": SecretStr("client-secret"),
        "oauth2_auth_url": "https://sso.example/authorize",
        "oauth2_token_url": "https://sso.example/token",
    }
    made = await create(db, **oauth2, signing_secret=SecretStr("signing-secret"))
    assert (made["has_oauth2_secret"], made["has_signing_secret"]) == (True, True)
    assert await secret(db, "oauth2_client_secret") == "client-secret"
    assert await secret(db, "signing_secret") == "signing-secret"
    changed = await update(db, made["id"], **API_KEY)
    assert (changed["has_oauth2_secret"], changed["oauth2_client_id"]) == (False, "")
    assert (changed["oauth2_auth_url"], changed["has_signing_secret"]) == ("", True)
    changed = await update(db, made["id"], signing_secret=SecretStr(""))
    assert changed["has_signing_secret"] is False


async def test_a_deleted_server_is_gone(db: Database) -> None:
    made = await create(db)
    async with db.transaction() as session:
        await servers.delete_server(session, UUID(made["id"]))
    async with db.transaction() as session:
        with pytest.raises(NotFound):
            await servers.get_server(session, UUID(made["id"]))
        with pytest.raises(NotFound):
            await servers.delete_server(session, UUID(made["id"]))
    with pytest.raises(NotFound):
        await update(db, made["id"])


async def test_the_policy_version_only_grows(db: Database) -> None:
    versions: list[int] = []
    for _ in range(3):
        async with db.transaction() as session:
            versions.append(await policy_state.bump(session))
    assert versions == [2, 3, 4]
