"""A 401 for a token whose server has another authorization server by now."""

from typing import Any

import pytest

from chatd.core.oauth import Bearer
from chatd.credentials import NotConnected, TokenService
from chatd.oauth.challenge import Challenge
from chatd.store.db import Database
from tests.credentials.accounts import Account, connect
from tests.credentials.rotating import Rotating
from tests.seed import change_server

ELSEWHERE = Challenge(resource_metadata="https://mcp.example/.well-known/oauth-protected-resource")


async def get(service: TokenService, account: Account) -> Bearer:
    return await service.bearer(account.server, account.principal)


async def move(account: Account, authority: Rotating) -> None:
    """Its server is configured with another client."""
    settings: dict[str, Any] = {
        "url": account.server.url,
        "auth_type": "oauth2",
        "oauth2_client_id": "new-client",
        "oauth2_auth_url": f"{authority.url}/authorize",
        "oauth2_token_url": authority.token_url,
    }
    await change_server(account.db, account.server.id, **settings)


async def test_a_401_that_says_where_tokens_come_from_ends_one_that_cannot_be_renewed(
    service: TokenService, db: Database, authority: Rotating
) -> None:
    account = await connect(db, authority, refreshable=False)
    sent = await get(service, account)
    refused = (account.server, account.principal, sent, ELSEWHERE)
    assert await service.refused(*refused, in_session=True) is None
    assert await get(service, account) == sent
    assert await service.refused(*refused) is None
    with pytest.raises(NotConnected, match="unauthorized"):
        await get(service, account)


@pytest.mark.parametrize("refreshable", [True, False])
async def test_a_token_of_a_client_that_was_replaced_fails_for_that(
    service: TokenService, db: Database, authority: Rotating, *, refreshable: bool
) -> None:
    account = await connect(db, authority, refreshable=refreshable)
    await move(account, authority)
    sent = await get(service, account)
    newer = await service.refused(account.server, account.principal, sent, ELSEWHERE)
    assert (newer is not None) == refreshable
    if newer is not None:
        await service.refused_again(account.server, account.principal, newer)
    with pytest.raises(NotConnected, match="client_changed"):
        await get(service, account)
