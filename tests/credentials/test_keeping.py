"""Logins that nobody uses stay alive, and a database that is away costs no login."""

import asyncio

import pytest

from chatd.credentials import Keeper, NoToken, TokenService, keeping
from chatd.outbound import Outbound
from chatd.store.db import Database
from tests.credentials.accounts import Account, connect, keep, sign_in
from tests.credentials.conftest import PACE, MakeService
from tests.credentials.rotating import Rotating
from tests.relay import relay_to
from tests.seed import KEYS
from tests.waiting import soon

IDLE = """
UPDATE oauth_tokens SET refreshed_at = now() - interval '8 days', attempted_at = NULL,
    expires_at = now() - interval '8 days' + make_interval(secs => lifetime_seconds)
"""


async def test_idle_logins_are_renewed_once(
    make_service: MakeService, db: Database, authority: Rotating
) -> None:
    account = await connect(db, authority)
    await keep(db, authority, authority.grant(), server_id=None, user_id=account.user_id)
    keepers = [Keeper(db, make_service(), days=7) for _ in range(3)]
    assert [await keeper.round() for keeper in keepers] == [0, 0, 0]
    await db.fetch(IDLE)
    await asyncio.gather(*(keeper.round() for keeper in keepers))
    assert (authority.refreshes, authority.revocations) == (2, 0)
    assert (await account.token()).generation == 2


async def test_one_that_cannot_be_renewed_holds_up_no_other(
    service: TokenService, db: Database, authority: Rotating
) -> None:
    account = await connect(db, authority)
    await db.fetch(IDLE)
    await keep(db, authority, authority.grant(), server_id=None, user_id=account.user_id)
    await db.fetch("UPDATE oauth_tokens SET client_id = 'gone' WHERE server_id IS NULL")
    await db.fetch(IDLE)
    assert await Keeper(db, service, days=7).round() == 1
    assert authority.refreshes == 1


async def test_those_that_cannot_even_be_read_hold_up_no_other(
    service: TokenService, db: Database, authority: Rotating, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await connect(db, authority)
    await db.fetch(IDLE)
    await keep(db, authority, authority.grant(), server_id=None, user_id=account.user_id)
    await db.fetch(f"{IDLE} WHERE server_id IS NULL")
    await db.fetch(
        "UPDATE oauth_tokens SET access_token_key_id = 'gone' WHERE server_id IS NOT NULL"
    )
    monkeypatch.setattr(keeping, "BATCH", 1)
    keeper = Keeper(db, service, days=7)
    assert [await keeper.round(), await keeper.round()] == [0, 1]


async def test_keeping_is_off_unless_it_is_set(service: TokenService, db: Database) -> None:
    await Keeper(db, service, days=0).run()


async def test_a_rotation_survives_a_database_that_is_away_when_it_arrives(
    db: Database, database_url: str, outbound: Outbound, authority: Rotating
) -> None:
    authority.lifetime_s = 60
    account = await connect(db, authority)
    await account.age(-1)
    authority.mood = "holding"
    async with relay_to(database_url) as (relay, url):
        far = Database(url, pool_size=2)
        service = TokenService(far, KEYS, outbound, pace=PACE)
        asked = asyncio.create_task(service.bearer(account.server, account.principal))
        await authority.until_asked(1)
        relay.refuse()
        authority.let_go.set()
        await soon(lambda: relay.refused > 2)
        relay.accept()
        assert (await asked).generation == 2
        await service.close()
        await far.close()
    assert (authority.refreshes, (await account.token()).generation) == (1, 2)


async def test_a_save_whose_answer_was_lost_is_not_saved_twice(
    db: Database, database_url: str, outbound: Outbound, authority: Rotating
) -> None:
    authority.lifetime_s = 60
    account = await connect(db, authority)
    await account.age(-1)
    authority.mood = "holding"
    async with relay_to(database_url) as (relay, url):
        far = Database(url, pool_size=1)
        service = TokenService(far, KEYS, outbound, pace=PACE)
        asked = asyncio.create_task(service.bearer(account.server, account.principal))
        await authority.until_asked(1)
        relay.lose_next_answer()
        authority.let_go.set()
        assert authority.believes((await asked).header.get_secret_value())
        await service.close()
        await far.close()
    assert (authority.refreshes, (await account.token()).generation) == (1, 2)


async def test_without_a_configured_client_a_login_is_kept(
    db: Database, outbound: Outbound, authority: Rotating
) -> None:
    account: Account = await sign_in(db, authority)
    await account.age(-1)
    service = TokenService(db, KEYS, outbound, pace=PACE)
    with pytest.raises(NoToken, match="could not be renewed"):
        await service.bearer(account.server, account.principal)
    assert (await account.token()).needs_reauth is None
    assert authority.asked == 0
