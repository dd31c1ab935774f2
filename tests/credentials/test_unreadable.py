"""Tokens whose key is missing: their users are told, and nothing is lost if it comes back."""

import pytest

from chatd.credentials import NotConnected, TokenService
from chatd.credentials.keeping import Keeper
from chatd.outbound import Outbound
from chatd.store.db import Database
from chatd.store.secrets import KeyRing
from tests.credentials.accounts import Account, connect
from tests.credentials.conftest import MakeService
from tests.credentials.rotating import Rotating


@pytest.fixture
async def account(db: Database, authority: Rotating) -> Account:
    authority.lifetime_s = 60
    return await connect(db, authority)


@pytest.fixture
def keyless(db: Database, outbound: Outbound) -> TokenService:
    return TokenService(db, KeyRing({"other": b"o" * 32}), outbound)


async def ask(service: TokenService, account: Account) -> None:
    with pytest.raises(NotConnected, match="tampered"):
        await service.bearer(account.server, account.principal)


async def test_it_is_marked_and_the_audit_log_says_so_once(
    keyless: TokenService, account: Account
) -> None:
    for times in (1, 2, 3):
        await ask(keyless, account)
        await ask(keyless, account)  # not counted before it is time
        row = await account.row()
        assert (row["needs_reauth"], row["retries"]) == ("tampered", times)
        assert "encryption key" in row["last_error"]
        await account.wait()
    (line,) = await account.db.fetch("SELECT * FROM audit_log WHERE target_type = 'oauth_token'")
    assert (line["action"], line["target_id"]) == ("token_refresh_failed", str(account.token_id))
    assert "tampered" in str(line["after"])


async def test_who_can_read_it_uses_it_at_once(
    keyless: TokenService, make_service: MakeService, account: Account, authority: Rotating
) -> None:
    await ask(keyless, account)
    bearer = await make_service().bearer(account.server, account.principal)
    assert authority.believes(bearer.header.get_secret_value())
    assert (await account.token()).needs_reauth is None


async def test_one_that_was_changed_is_marked(service: TokenService, account: Account) -> None:
    await account.db.fetch("UPDATE oauth_tokens SET access_token = refresh_token")
    await ask(service, account)
    assert (await account.row())["needs_reauth"] == "tampered"


async def test_idle_ones_that_one_worker_cannot_read_are_left_to_others(
    keyless: TokenService, service: TokenService, account: Account
) -> None:
    old = "UPDATE oauth_tokens SET refreshed_at = now() - interval '9 days', attempted_at = NULL"
    for tokens, kept in ((keyless, 0), (service, 1)):
        await account.db.fetch(f"{old}, expires_at = now() - interval '9 days'")
        assert await Keeper(account.db, tokens, days=7).round() == kept
    assert (await account.token()).generation == 2
