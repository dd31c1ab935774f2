"""Which resource the deployment's own tokens are asked for (RFC 8707)."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from pydantic import SecretStr

from chatd.credentials import Credentials
from chatd.mcp.pool import SessionPool
from chatd.outbound import Outbound
from chatd.store.db import Database
from tests.credentials.accounts import account_of, make_oauth_server
from tests.credentials.conftest import MakeService
from tests.credentials.guarded import Guarded
from tests.credentials.rotating import Rotating
from tests.mcp.peer import running
from tests.seed import make_user


@pytest.fixture
async def pool(make_service: MakeService, outbound: Outbound) -> AsyncGenerator[SessionPool]:
    credentials = Credentials(make_service())
    made = SessionPool(lambda auth: outbound.mcp_client(auth=auth), credentials)
    yield made
    await made.aclose()


@pytest.fixture
async def peer(authority: Rotating) -> AsyncGenerator[Guarded]:
    async with running(Guarded(authority, modern=True)) as guarded:
        yield guarded


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({}, "{url}"),
        ({"oauth2_resource": "api://tickets"}, "api://tickets"),
        ({"oauth2_resource": "api://tickets", "oauth2_send_resource": False}, None),
        ({"oauth2_send_resource": False}, None),
    ],
)
async def test_it_is_the_servers_url_another_or_none(
    pool: SessionPool,
    db: Database,
    authority: Rotating,
    peer: Guarded,
    overrides: dict[str, Any],
    told: str | None,
) -> None:
    server_id = await make_oauth_server(
        db,
        authority,
        url=peer.url,
        auth_type="client_credentials",
        oauth2_auth_url="",
        oauth2_client_secret=SecretStr("canary-client-secret"),
        **overrides,
    )
    account = await account_of(db, server_id, (await make_user(db)).user_id)
    for _ in range(2):
        await pool.list_tools(account.server, account.principal)
        authority.expire()
    assert len(authority.forms) == 2
    for form in authority.forms:
        assert form.get("resource") == (told and told.format(url=peer.url))
