"""Clients: a token finds the one it is bound to, also after its server got another one."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlmodel import select

from chatd.core.oauth import Client
from chatd.store import oauth_clients, servers, tables
from chatd.store.db import Database
from chatd.store.oauth_clients import KnownClient
from chatd.store.secrets import Tampered
from tests.seed import KEYS, make_server, make_user, server_settings
from tests.store.granting import ISSUER, connect, stored

TOKEN_URL = f"{ISSUER}/token"
OAUTH2: dict[str, Any] = {
    "auth_type": "oauth2",
    "oauth2_client_id": "client",
    "oauth2_client_secret": SecretStr("s3cret"),
    "oauth2_auth_url": f"{ISSUER}/authorize",
    "oauth2_token_url": TOKEN_URL,
    "oauth2_revocation_url": f"{ISSUER}/revoke",
}


@pytest.fixture
async def server(db: Database) -> UUID:
    made = await make_server(db, **OAUTH2)
    await db.fetch("UPDATE mcp_server_configs SET oauth2_issuer = $1", ISSUER)
    return made


async def client_of(
    db: Database,
    server: UUID,
    client_id: str = "client",
    issuer: str = ISSUER,
    token_url: str = TOKEN_URL,
) -> KnownClient | None:
    return await oauth_clients.client_of(db, KEYS, server, issuer, client_id, token_url)


async def change(db: Database, server: UUID, **changes: Any) -> None:
    new = replace(server_settings(**OAUTH2), **changes)
    async with db.transaction() as session:
        await servers.update_server(session, KEYS, server, new)


async def test_the_configured_client_is_found(db: Database, server: UUID) -> None:
    known = await client_of(db, server)
    assert known is not None
    assert known.client == Client("client", "client_secret_basic", SecretStr("s3cret"))
    assert (known.token_url, known.revocation_url) == (TOKEN_URL, f"{ISSUER}/revoke")


async def test_no_client_is_used_at_another_issuer(db: Database, server: UUID) -> None:
    assert await client_of(db, server, issuer="https://evil.example") is None
    assert await client_of(db, server, issuer="") is None
    assert await client_of(db, server, "another") is None


async def test_a_client_without_a_secret_proves_nothing(db: Database) -> None:
    public = {name: value for name, value in OAUTH2.items() if name != "oauth2_client_secret"}
    made = await make_server(db, **public)
    known = await client_of(db, made, issuer="")
    assert known is not None
    assert (known.client.auth_method, known.client.secret) == ("none", None)


async def test_a_client_that_was_replaced_is_kept(db: Database, server: UUID) -> None:
    changes = {"oauth2_client_id": "next", "oauth2_client_secret": SecretStr("other")}
    await change(db, server, **changes)
    before = await client_of(db, server)
    assert before is not None
    assert before.client.secret == SecretStr("s3cret")
    assert before.token_url == TOKEN_URL
    now = await client_of(db, server, "next")
    assert now is not None
    assert now.client.secret == SecretStr("other")


async def test_a_client_may_be_replaced_more_than_once(db: Database, server: UUID) -> None:
    for client_id in ("next", "client", "next"):
        await change(db, server, oauth2_client_id=client_id)
    async with db.transaction() as session:
        assert set(await oauth_clients.retired_ids(session, server)) == {"client", "next"}


async def test_its_secret_does_not_open_elsewhere(db: Database, server: UUID) -> None:
    await change(db, server, oauth2_client_id="next")
    await db.fetch(
        "UPDATE oauth_clients SET secret = (SELECT oauth2_client_secret FROM mcp_server_configs)"
    )
    with pytest.raises(Tampered):
        await client_of(db, server)


async def test_it_is_kept_until_no_token_is_bound_to_it(db: Database, server: UUID) -> None:
    user = await make_user(db)
    await connect(db, user.user_id, server)
    await change(db, server, oauth2_client_id="next")
    await db.fetch("UPDATE oauth_clients SET retired_at = retired_at - interval '2 days'")
    assert await oauth_clients.forget_clients(db) == 0
    await db.fetch("DELETE FROM oauth_tokens")
    assert await oauth_clients.forget_clients(db) == 1
    assert await client_of(db, server) is None


async def test_an_issuer_without_a_name_is_known_by_its_token_endpoint(db: Database) -> None:
    """A client id may be the same at two of them; their secrets never go to each other."""
    server = await make_server(db, **OAUTH2)
    token = await connect(db, (await make_user(db)).user_id, server)
    await db.fetch("UPDATE oauth_tokens SET issuer = ''")
    elsewhere = {
        "oauth2_token_url": "https://next.example/token",
        "oauth2_revocation_url": "https://next.example/revoke",
        "oauth2_client_secret": SecretStr("other"),
    }
    for changes in (elsewhere, {}, elsewhere):
        await change(db, server, **changes)
    await db.fetch("UPDATE oauth_clients SET retired_at = retired_at - interval '2 days'")
    assert await oauth_clients.forget_clients(db) == 1
    before = await client_of(db, server, issuer="", token_url=token.token_url)
    now = await client_of(db, server, issuer="", token_url="https://next.example/token")
    assert before is not None
    assert now is not None
    assert (before.client.secret, before.revocation_url) == (
        SecretStr("s3cret"),
        f"{ISSUER}/revoke",
    )
    assert (now.client.secret, now.revocation_url) == (
        SecretStr("other"),
        "https://next.example/revoke",
    )
    assert await client_of(db, server, issuer="", token_url="https://evil.example/token") is None


async def test_a_named_issuer_may_move_its_token_endpoint(db: Database, server: UUID) -> None:
    assert await client_of(db, server, token_url=f"{ISSUER}/former") is not None


async def test_what_was_discovered_ends_where_it_is_set_by_hand(db: Database, server: UUID) -> None:
    await db.fetch(
        """UPDATE mcp_server_configs SET oauth2_client_source = 'registered',
            oauth2_sends_issuer = true, oauth2_resource = 'https://mcp.example'"""
    )
    await change(db, server, oauth2_client_id="by hand")
    assert await discovered(db) == (ISSUER, "", True, "https://mcp.example")
    await change(db, server, oauth2_client_id="by hand", oauth2_token_url=f"{ISSUER}/other")
    assert await discovered(db) == ("", "", False, "https://mcp.example")
    await change(db, server, auth_type="none")
    assert await discovered(db) == ("", "", False, "")


async def discovered(db: Database) -> tuple[str, str, bool, str]:
    async with db.transaction() as session:
        row = (await session.exec(select(tables.McpServerConfig))).one()
    return (
        row.oauth2_issuer,
        row.oauth2_client_source,
        row.oauth2_sends_issuer,
        row.oauth2_resource,
    )


async def test_tokens_do_not_follow_a_server_to_another_host(db: Database, server: UUID) -> None:
    token = await connect(db, (await make_user(db)).user_id, server)
    await change(db, server, url="http://127.0.0.1:9/elsewhere")
    assert (await stored(db, token.id)).needs_reauth is None
    await change(db, server, url="https://elsewhere.example/mcp")
    assert (await stored(db, token.id)).needs_reauth == "client_changed"


async def test_tokens_end_with_the_auth_type_they_were_granted_for(
    db: Database, server: UUID
) -> None:
    await connect(db, (await make_user(db)).user_id, server)
    await change(db, server, auth_type="user_oidc")
    assert await db.fetch("SELECT 1 FROM oauth_tokens") == []


async def test_what_a_deployment_got_by_itself_it_gets_anew(db: Database, server: UUID) -> None:
    user = await make_user(db)
    mine = await connect(db, user.user_id, server)
    await connect(db, None, server)
    await change(db, server, description="the same", oauth2_client_secret=None)
    assert await own(db) == 1
    await change(db, server, oauth2_scopes="more", oauth2_client_secret=None)
    assert await own(db) == 0
    assert (await stored(db, mine.id)).needs_reauth is None


async def own(db: Database) -> int:
    return len(await db.fetch("SELECT 1 FROM oauth_tokens WHERE user_id IS NULL"))
