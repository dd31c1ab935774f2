"""A usable token or the reason why there is none, whatever the authorization server does."""

import asyncio
from collections import Counter
from datetime import datetime, timedelta, tzinfo
from typing import Any, Self
from uuid import uuid4

import pytest

from chatd.core.oauth import Bearer
from chatd.core.servers import Principal
from chatd.credentials import NotConnected, NoToken, TokenService
from chatd.oauth.challenge import Challenge
from chatd.store.db import Database
from chatd.store.oauth_tokens import save_refresh, take_lease
from tests.credentials.accounts import Account, account_of, connect, grant_of, keep
from tests.credentials.conftest import MakeService
from tests.credentials.rotating import Rotating
from tests.seed import KEYS, change_server
from tests.waiting import until

TURNS = 20
UNAUTHORIZED = Challenge(error="invalid_token")


async def get(service: TokenService, account: Account) -> Bearer:
    return await service.bearer(account.server, account.principal)


async def header(service: TokenService, account: Account) -> str:
    return (await get(service, account)).header.get_secret_value()


@pytest.fixture
async def account(db: Database, authority: Rotating) -> Account:
    authority.lifetime_s = 60
    return await connect(db, authority)


async def test_a_fresh_token_is_handed_out_as_bearer(
    service: TokenService, account: Account, authority: Rotating
) -> None:
    assert authority.believes(await header(service, account))
    assert authority.asked == 0


async def test_a_due_token_is_used_while_a_newer_one_is_fetched(
    service: TokenService, account: Account, authority: Rotating
) -> None:
    await account.age(8)
    authority.mood = "holding"
    first = await get(service, account)
    await authority.until_asked(1)
    assert (await get(service, account)).generation == first.generation == 1
    authority.let_go.set()

    async def renewed() -> bool:
        return (await get(service, account)).generation == 2

    await until(renewed)
    assert (authority.refreshes, authority.revocations) == (1, 0)


@pytest.mark.parametrize("hours", [-2, 2])
async def test_a_clock_that_is_wrong_costs_nothing(
    service: TokenService,
    account: Account,
    authority: Rotating,
    monkeypatch: pytest.MonkeyPatch,
    hours: int,
) -> None:
    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(hours=hours)

    monkeypatch.setattr("chatd.store.oauth_tokens.datetime", Wrong)
    monkeypatch.setattr("chatd.credentials.tokens.datetime", Wrong)
    assert (await get(service, account)).generation == 1
    await account.age(-1)
    assert (await get(service, account)).generation == 2
    assert authority.refreshes == 1


async def test_who_was_thought_lost_and_saves_after_all_costs_no_login(
    service: TokenService, account: Account, authority: Rotating
) -> None:
    """As when PostgreSQL was away for longer than a lease lasts."""
    await account.age(-1)
    before = await account.token()
    lease = await take_lease(account.db, account.token_id, generation=1)
    assert lease is not None
    await account.give_up_lease()
    asked = asyncio.create_task(get(service, account))

    async def taken_over() -> bool:
        return (await account.row())["refresher"] != lease.id

    await until(taken_over)
    late = grant_of(authority.grant())
    assert await save_refresh(account.db, KEYS, before, lease.id, late) is not None
    assert (await asked).generation == 2
    assert (authority.asked, (await account.row())["refresher"]) == (0, None)


async def test_many_turns_with_an_expired_token_are_one_refresh(
    service: TokenService, account: Account, authority: Rotating
) -> None:
    await account.age(-1)
    headers = await asyncio.gather(*(header(service, account) for _ in range(TURNS)))
    assert (authority.refreshes, len(set(headers))) == (1, 1)
    assert authority.believes(headers[0])


async def test_several_processes_are_one_refresh_each_rotation(
    make_service: MakeService, account: Account, authority: Rotating
) -> None:
    services = [make_service() for _ in range(5)]
    for rotation in range(1, 4):
        await account.age(-1)
        headers = await asyncio.gather(*(header(each, account) for each in services * 4))
        assert (authority.refreshes, len(set(headers))) == (rotation, 1)
    assert authority.revocations == 0


async def test_tokens_that_live_shortly_never_run_out(
    make_service: MakeService, db: Database, authority: Rotating
) -> None:
    """Three processes, ten turns each, over several rotations."""
    authority.lifetime_s = 0.6
    account = await connect(db, authority)
    refused = Counter[bool]()

    async def turn(service: TokenService) -> None:
        while authority.refreshes < 4:
            refused[authority.believes(await header(service, account))] += 1
            await asyncio.sleep(0.01)

    services = [make_service() for _ in range(3)]
    await asyncio.gather(*(turn(service) for service in services for _ in range(10)))
    assert (refused[False], authority.revocations) == (0, 0)
    assert (await account.token()).generation == authority.refreshes + 1


@pytest.mark.parametrize("mood", ["failing", "hanging"])
async def test_while_the_server_is_down_the_old_token_is_used_until_it_is_over(
    service: TokenService, account: Account, authority: Rotating, mood: Any
) -> None:
    authority.mood = mood
    await account.age(8)
    assert authority.believes(await header(service, account))
    await authority.until_asked(1)
    assert authority.believes(await header(service, account))
    await account.age(-1)
    with pytest.raises(NoToken) as raised:
        await get(service, account)
    assert not isinstance(raised.value, NotConnected)
    authority.mood = "well"

    async def recovered() -> bool:
        try:
            return authority.believes(await header(service, account))
        except NoToken:
            return False

    await until(recovered)
    assert (authority.revocations, (await account.token()).needs_reauth) == (0, None)


async def test_a_cancelled_caller_loses_no_rotation(
    service: TokenService, account: Account, authority: Rotating
) -> None:
    await account.age(-1)
    authority.mood = "holding"
    turn = asyncio.create_task(get(service, account))
    await authority.until_asked(1)
    turn.cancel()
    await asyncio.gather(turn, return_exceptions=True)
    authority.let_go.set()
    authority.mood = "well"
    assert (await get(service, account)).generation == 2
    await account.age(-1)
    assert (await get(service, account)).generation == 3
    assert (authority.refreshes, authority.revocations) == (2, 0)


async def test_closing_waits_for_what_has_been_asked_for(
    service: TokenService, account: Account, authority: Rotating
) -> None:
    await account.age(8)
    authority.mood = "holding"
    await get(service, account)
    await authority.until_asked(1)
    closing = asyncio.create_task(service.close())
    authority.let_go.set()
    await closing
    assert (await account.token()).generation == 2


async def test_an_answer_that_is_lost_on_its_way_asks_the_user_to_connect_again(
    service: TokenService, account: Account, authority: Rotating
) -> None:
    """The server has rotated and nobody knows the new token: no client can mend that."""
    await account.age(-1)
    authority.mood = "dropping"
    with pytest.raises(NoToken):
        await get(service, account)
    authority.mood = "well"
    reasons: list[str] = []

    async def lost() -> bool:
        try:
            await get(service, account)
        except NotConnected as missing:
            reasons.append(missing.reason)
            return True
        except NoToken:
            pass
        return False

    await until(lost)
    assert reasons == ["invalid_grant"]
    row = await account.row()
    assert (row["needs_reauth"], row["refresh_token"] is not None) == ("invalid_grant", True)
    (line,) = await account.db.fetch("SELECT * FROM audit_log WHERE target_type = 'oauth_token'")
    assert line["action"] == "token_refresh_failed"
    assert "invalid_grant" in str(line["after"])


async def test_a_lost_token_is_not_asked_for_again(
    make_service: MakeService, account: Account, authority: Rotating
) -> None:
    await account.db.fetch("UPDATE oauth_tokens SET needs_reauth = 'invalid_grant'")
    await account.age(-1)
    for service in (make_service(), make_service()):
        with pytest.raises(NotConnected, match="invalid_grant"):
            await get(service, account)
    assert authority.asked == 0


async def test_a_token_that_cannot_be_refreshed_is_used_until_its_end(
    service: TokenService, db: Database, authority: Rotating
) -> None:
    account = await connect(db, authority, refreshable=False)
    await account.age(0.2)
    assert (await get(service, account)).generation == 1
    await account.age(-1)
    with pytest.raises(NotConnected, match="expired"):
        await get(service, account)
    assert (await account.token()).needs_reauth == "expired"


async def test_nobody_is_given_anothers_token(service: TokenService, account: Account) -> None:
    stolen = Principal("user:x", uuid4(), connection_id=account.token_id)
    nobody = Principal("user:x", account.user_id)
    for principal in (stolen, nobody):
        with pytest.raises(NotConnected, match="not_connected"):
            await service.bearer(account.server, principal)


async def test_a_refresh_asks_for_the_resource_that_was_granted(
    service: TokenService, account: Account, authority: Rotating
) -> None:
    resource = "https://mcp.example/mcp"
    await account.db.fetch("UPDATE oauth_tokens SET resource = $1", resource)
    for generation in (2, 3):
        await account.age(-1)
        assert (await get(service, account)).generation == generation
        assert authority.forms[-1]["resource"] == resource
    assert (await account.row())["resource"] == resource


@pytest.mark.parametrize("source", ["", "manual", "metadata_document"])
async def test_a_refused_client_keeps_everything(
    service: TokenService, account: Account, authority: Rotating, source: str
) -> None:
    await account.db.fetch("UPDATE mcp_server_configs SET oauth2_client_source = $1", source)
    await account.age(-1)
    authority.mood = "refusing_client"
    with pytest.raises(NoToken, match="invalid_client"):
        await get(service, account)
    authority.mood = "well"

    async def recovered() -> bool:
        try:
            return (await get(service, account)).generation == 2
        except NoToken:
            return False

    await until(recovered)
    assert (await account.token()).needs_reauth is None


async def test_a_refused_client_that_was_registered_is_not_asked_with_again(
    make_service: MakeService, account: Account, authority: Rotating
) -> None:
    await account.db.fetch("UPDATE mcp_server_configs SET oauth2_client_source = 'registered'")
    await account.age(-1)
    authority.mood = "refusing_client"
    for service in (make_service(), make_service()):
        with pytest.raises(NotConnected, match="client_changed"):
            await get(service, account)
    row = await account.row()
    assert (row["needs_reauth"], row["last_error"]) == ("client_changed", "invalid_client")
    assert (authority.asked, row["refresh_token"] is not None) == (1, True)


async def test_a_client_that_was_registered_outlives_what_is_not_said_of_it(
    service: TokenService, account: Account, authority: Rotating
) -> None:
    await account.db.fetch("UPDATE mcp_server_configs SET oauth2_client_source = 'registered'")
    await account.age(-1)
    authority.mood = "failing"
    with pytest.raises(NoToken):
        await get(service, account)
    assert (await account.token()).needs_reauth is None


async def test_a_retired_client_is_used_until_it_is_refused(
    service: TokenService, account: Account, authority: Rotating
) -> None:
    settings: dict[str, Any] = {
        "url": account.server.url,
        "auth_type": "oauth2",
        "oauth2_client_id": "new-client",
        "oauth2_auth_url": f"{authority.url}/authorize",
        "oauth2_token_url": authority.token_url,
    }
    await change_server(account.db, account.server.id, **settings)
    await account.age(-1)
    assert (await get(service, account)).generation == 2
    assert authority.forms[-1]["client_id"] == "our-client"
    await account.age(-1)
    authority.mood = "refusing_client"
    with pytest.raises(NotConnected, match="client_changed"):
        await get(service, account)


async def test_a_401_is_answered_with_a_newer_token(
    make_service: MakeService, account: Account, authority: Rotating
) -> None:
    one, other = make_service(), make_service()
    sent = await get(one, account)
    authority.expire()
    newer = await one.refused(account.server, account.principal, sent, UNAUTHORIZED)
    assert newer is not None
    assert authority.believes(newer.header.get_secret_value())
    same = await other.refused(account.server, account.principal, sent, UNAUTHORIZED)
    assert same == newer
    assert authority.refreshes == 1


async def test_a_401_for_the_new_token_too_asks_the_user_to_connect_again(
    service: TokenService, account: Account
) -> None:
    sent = await get(service, account)
    newer = await service.refused(account.server, account.principal, sent, UNAUTHORIZED)
    assert newer is not None
    await service.refused_again(account.server, account.principal, newer)
    with pytest.raises(NotConnected, match="unauthorized"):
        await get(service, account)


async def test_a_new_token_that_ran_out_on_its_way_is_no_reason_to_connect_again(
    service: TokenService, account: Account, authority: Rotating
) -> None:
    sent = await get(service, account)
    newer = await service.refused(account.server, account.principal, sent, UNAUTHORIZED)
    assert newer is not None
    await account.age(-1)
    await service.refused_again(account.server, account.principal, newer)
    assert (await account.token()).needs_reauth is None
    newest = await service.refused(account.server, account.principal, sent, UNAUTHORIZED)
    assert newest is not None
    assert (newest.generation, authority.refreshes) == (3, 2)


async def test_a_401_for_a_token_that_cannot_be_renewed_ends_it_only_if_it_is_called_invalid(
    service: TokenService, db: Database, authority: Rotating
) -> None:
    account = await connect(db, authority, refreshable=False)
    sent = await get(service, account)
    unclear = Challenge()
    assert await service.refused(account.server, account.principal, sent, unclear) is None
    assert await get(service, account) == sent
    assert await service.refused(account.server, account.principal, sent, UNAUTHORIZED) is None
    with pytest.raises(NotConnected, match="unauthorized"):
        await get(service, account)


async def test_a_401_without_a_newer_token_changes_nothing(
    service: TokenService, account: Account, authority: Rotating
) -> None:
    sent = await get(service, account)
    authority.mood = "failing"
    assert await service.refused(account.server, account.principal, sent, UNAUTHORIZED) is None
    assert await get(service, account) == sent


async def test_a_403_notes_the_scopes_to_ask_for(service: TokenService, account: Account) -> None:
    sent = await get(service, account)
    for _ in range(5):
        challenge = Challenge(scope="files:write", error="insufficient_scope")
        await service.lacks_scope(account.server, sent, challenge)
    await service.lacks_scope(account.server, sent, Challenge(scope="x", error="invalid_token"))
    row = await account.row()
    assert (row["wanted_scopes"], row["step_ups"]) == ("files:write", 1)
    assert await get(service, account) == sent


async def test_a_401_for_its_scope_is_like_a_403(
    service: TokenService, account: Account, authority: Rotating
) -> None:
    sent = await get(service, account)
    challenge = Challenge(scope="files:write", error="insufficient_scope")
    assert await service.refused(account.server, account.principal, sent, challenge) is None
    assert ((await account.row())["wanted_scopes"], authority.asked) == ("files:write", 0)


async def test_two_workers_hand_out_the_newest_token(
    make_service: MakeService, account: Account
) -> None:
    one, other = make_service(), make_service()
    before = await get(other, account)
    await account.age(-1)
    newest = await get(one, account)
    assert newest.generation == before.generation + 1
    assert await get(other, account) == newest


async def test_a_disconnected_account_is_given_nothing_at_once(
    service: TokenService, account: Account
) -> None:
    await get(service, account)
    await account.db.fetch("DELETE FROM oauth_tokens")
    with pytest.raises(NotConnected, match="not_connected"):
        await get(service, account)


async def test_a_new_grant_is_not_handed_to_who_had_the_former(
    service: TokenService, account: Account, authority: Rotating
) -> None:
    await keep(
        account.db,
        authority,
        authority.grant(),
        server_id=account.server.id,
        user_id=account.user_id,
    )
    with pytest.raises(NotConnected, match="not_connected"):
        await get(service, account)
    again = await account_of(account.db, account.server.id, account.user_id)
    assert authority.believes(await header(service, again))
