"""Refreshes whose token is gone when the answer arrives: nobody keeps what it brought."""

import asyncio

import pytest
from pydantic import SecretStr

from chatd.credentials import NotConnected, TokenService
from chatd.store.db import Database
from tests.credentials.accounts import Account, connect, keep
from tests.credentials.rotating import Rotating
from tests.seed import change_server

SECRET = "canary-secret"


@pytest.fixture
async def account(db: Database, authority: Rotating) -> Account:
    authority.lifetime_s = 60
    return await connect(
        db,
        authority,
        oauth2_client_secret=SecretStr(SECRET),
        oauth2_auth_method="client_secret_post",
        oauth2_revocation_url=f"{authority.url}/revoke",
    )


async def refreshing(
    service: TokenService, account: Account, authority: Rotating
) -> "asyncio.Task[object]":
    """With the answer on its way."""
    await account.age(-1)
    authority.mood = "holding"
    asked = asyncio.create_task(service.bearer(account.server, account.principal))
    await authority.until_asked(1)
    return asked


@pytest.mark.parametrize(
    "end", ["DELETE FROM oauth_tokens", "UPDATE oauth_tokens SET needs_reauth = 'client_changed'"]
)
async def test_a_token_that_has_ended_meanwhile_is_taken_back_from_its_server(
    service: TokenService, account: Account, authority: Rotating, end: str
) -> None:
    spent = (await account.token()).refresh_token
    asked = await refreshing(service, account, authority)
    await account.db.fetch(end)
    authority.let_go.set()
    with pytest.raises(NotConnected):
        await asked
    (form,) = authority.taken_back
    assert (form["client_id"], form["client_secret"]) == ("our-client", SECRET)
    assert form["token_type_hint"] == "refresh_token"
    assert spent is not None
    assert form["token"] != spent.get_secret_value()


async def test_not_where_the_user_has_connected_again(
    service: TokenService, account: Account, authority: Rotating
) -> None:
    """Some servers end everything that the client was granted by this user."""
    asked = await refreshing(service, account, authority)
    await keep(
        account.db,
        authority,
        authority.grant(),
        server_id=account.server.id,
        user_id=account.user_id,
    )
    authority.let_go.set()
    with pytest.raises(NotConnected):
        await asked
    assert authority.taken_back == []


async def test_a_secret_goes_to_the_token_endpoint_it_was_set_with(
    service: TokenService, account: Account, authority: Rotating
) -> None:
    """Without an issuer's name, the same client id at another endpoint is another client."""
    await change_server(
        account.db,
        account.server.id,
        url=account.server.url,
        auth_type="oauth2",
        oauth2_client_id="our-client",
        oauth2_client_secret=SecretStr("canary-next"),
        oauth2_auth_method="client_secret_post",
        oauth2_auth_url="https://next.example/authorize",
        oauth2_token_url="https://next.example/token",
    )
    await account.age(-1)
    bearer = await service.bearer(account.server, account.principal)
    assert bearer.generation == 2
    assert authority.forms[-1]["client_secret"] == SECRET
    await account.age(-1)
    authority.mood = "refusing_client"
    with pytest.raises(NotConnected, match="client_changed"):
        await service.bearer(account.server, account.principal)
