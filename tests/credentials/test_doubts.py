"""Servers that are out of order refuse good tokens: nobody has to connect again because of it."""

import asyncio

import pytest

from chatd.credentials import Credentials, NotConnected, NoToken
from chatd.mcp.errors import ServerFailed
from chatd.mcp.pool import SessionPool
from chatd.outbound import Outbound
from chatd.store.db import Database
from chatd.store.oauth_tokens import mark_reauth
from chatd.telemetry import REGISTRY
from tests.credentials.accounts import Account, connect
from tests.credentials.conftest import MakeService
from tests.credentials.guarded import Guarded
from tests.credentials.rotating import Rotating
from tests.mcp.peer import running

DEAD = 400, b'{"error": "invalid_grant"}'
UNCLEAR = [
    (400, b'{"error": "invalid_request", "error_description": "canary"}'),
    (400, b'{"error": "unauthorized_client"}'),
    (401, b'{"error": "unsupported_grant_type"}'),
    (400, b'{"error": "invalid_scope"}'),
    (400, b"<h1>Bad request</h1>"),
    (401, b""),
]


@pytest.fixture
async def account(db: Database, authority: Rotating) -> Account:
    authority.lifetime_s = 60
    return await connect(db, authority)


async def ask(make_service: MakeService, account: Account, times: int = 1) -> None:
    """Every time another process, to which the token is over."""
    for _ in range(times):
        await account.age(-1)
        await account.give_up_lease()
        with pytest.raises(NoToken):
            await make_service().bearer(account.server, account.principal)


# --- an MCP server that believes nobody


async def listed(make_service: MakeService, outbound: Outbound, account: Account) -> str:
    """What a new process gets that asks for the server's tools."""
    pool = SessionPool(lambda auth: outbound.mcp_client(auth=auth), Credentials(make_service()))
    try:
        await pool.list_tools(account.server, account.principal)
        return "tools"
    except ServerFailed as failed:
        return failed.reason
    finally:
        await pool.aclose()


async def test_a_server_that_was_out_of_order_costs_nobody_their_connection(
    make_service: MakeService, outbound: Outbound, db: Database, authority: Rotating
) -> None:
    authority.lifetime_s = 60
    async with running(Guarded(authority)) as peer:
        account = await connect(db, authority, url=peer.url)
        peer.strict = True
        for times in (1, 2):
            assert await listed(make_service, outbound, account) == "auth_required"
            row = await account.row()
            assert (row["needs_reauth"], row["retries"]) == ("unauthorized", times)
            assert row["refresh_token"] is not None
            refusals = peer.refusals
            assert (
                await listed(make_service, outbound, account) == "auth_required"
            )  # not before it is time
            assert peer.refusals == refusals
            await account.wait()
        peer.strict = False
        assert await listed(make_service, outbound, account) == "tools"
        assert (await account.token()).needs_reauth is None
    assert authority.revocations == 0
    (line,) = await db.fetch("SELECT after FROM audit_log WHERE target_type = 'oauth_token'")
    assert "unauthorized" in str(line["after"])


async def test_a_connection_without_a_refresh_token_is_tried_again_too(
    make_service: MakeService, outbound: Outbound, db: Database, authority: Rotating
) -> None:
    authority.lifetime_s = 60
    async with running(Guarded(authority)) as peer:
        account = await connect(db, authority, url=peer.url, refreshable=False)
        peer.strict = True
        assert await listed(make_service, outbound, account) == "auth_required"
        assert (await account.token()).needs_reauth == "unauthorized"
        peer.strict = False
        await account.wait()
        assert await listed(make_service, outbound, account) == "tools"


async def test_a_connection_that_turns_out_to_be_revoked_is_not_tried_again(
    make_service: MakeService, outbound: Outbound, db: Database, authority: Rotating
) -> None:
    authority.lifetime_s = 60
    async with running(Guarded(authority)) as peer:
        account = await connect(db, authority, url=peer.url)
        peer.strict = True
        assert await listed(make_service, outbound, account) == "auth_required"
        authority.mood, authority.refusal = "refusing", DEAD
        await account.wait()
        assert await listed(make_service, outbound, account) == "auth_required"
        assert (await account.token()).needs_reauth == "invalid_grant"
        asked = authority.asked
        await account.wait()
        assert await listed(make_service, outbound, account) == "auth_required"
        assert authority.asked == asked


async def test_all_that_come_when_it_is_time_are_given_the_token(
    make_service: MakeService, account: Account
) -> None:
    await mark_reauth(account.db, account.token_id, generation=1, reason="unauthorized")
    await account.wait()
    services = [make_service() for _ in range(5)]
    bearers = await asyncio.gather(
        *(each.bearer(account.server, account.principal) for each in services * 4)
    )
    assert {bearer.generation for bearer in bearers} == {1}


async def test_pauses_grow_up_to_an_hour_and_start_over_after_a_while(account: Account) -> None:
    minutes: list[int] = []
    for _ in range(8):
        assert await mark_reauth(account.db, account.token_id, generation=1, reason="unauthorized")
        (row,) = await account.db.fetch(
            """SELECT round(extract(epoch FROM retry_at - clock_timestamp()) / 60)::int AS minutes
            FROM oauth_tokens"""
        )
        minutes.append(row["minutes"])
        await account.db.fetch(
            "UPDATE oauth_tokens SET needs_reauth = NULL, retry_at = clock_timestamp()"
        )
    assert minutes == [1, 2, 4, 8, 16, 32, 60, 60]
    await account.db.fetch("UPDATE oauth_tokens SET retry_at = now() - interval '2 hours'")
    assert await mark_reauth(account.db, account.token_id, generation=1, reason="unauthorized") == 1


@pytest.mark.parametrize("reason", ["invalid_grant", "client_changed", "expired", "refresh_lost"])
async def test_what_is_final_is_never_tried_again(
    make_service: MakeService, account: Account, authority: Rotating, reason: str
) -> None:
    await account.db.fetch("UPDATE oauth_tokens SET needs_reauth = $1", reason)
    await account.wait()
    with pytest.raises(NotConnected, match=reason):
        await make_service().bearer(account.server, account.principal)
    assert authority.asked == 0


# --- an authorization server that refuses without a word on whether that is for good


@pytest.mark.parametrize("refusal", UNCLEAR)
async def test_a_refresh_that_is_refused_for_minutes_asks_the_user_to_connect_again(
    make_service: MakeService, account: Account, authority: Rotating, refusal: tuple[int, bytes]
) -> None:
    authority.mood, authority.refusal = "refusing", refusal
    for _ in range(2):
        await ask(make_service, account, times=3)  # within two minutes they count once
        assert (await account.token()).needs_reauth is None
        await account.wait()
    await ask(make_service, account)
    row = await account.row()
    assert (row["needs_reauth"], row["refresh_token"] is not None) == ("refresh_refused", True)
    assert "canary" not in row["last_error"]
    asked = authority.asked
    await ask(make_service, account)
    assert authority.asked == asked


async def test_such_a_connection_is_tried_again_after_a_while(
    make_service: MakeService, account: Account, authority: Rotating
) -> None:
    authority.mood = "refusing"
    for _ in range(4):
        await ask(make_service, account)
        await account.wait()
    assert (await account.row())["retries"] == 2
    authority.mood = "well"
    bearer = await make_service().bearer(account.server, account.principal)
    assert authority.believes(bearer.header.get_secret_value())
    row = await account.row()
    assert (row["needs_reauth"], row["refusals"]) == (None, 0)


async def test_a_renewal_in_between_makes_up_for_refusals(
    make_service: MakeService, account: Account, authority: Rotating
) -> None:
    for _ in range(3):
        authority.mood = "refusing"
        for _ in range(2):
            await ask(make_service, account)
            await account.wait()
        authority.mood = "well"
        await make_service().bearer(account.server, account.principal)
    assert (await account.token()).needs_reauth is None


@pytest.mark.parametrize(
    "refusal",
    [
        (500, b'{"error": "invalid_request"}'),
        (503, b""),
        (429, b'{"error": "invalid_request"}'),
        (403, b"<h1>Who are you?</h1>"),
        (400, b'{"error": "temporarily_unavailable"}'),
        (401, b'{"error": "invalid_client"}'),
    ],
)
async def test_what_says_nothing_of_the_token_never_counts(
    make_service: MakeService, account: Account, authority: Rotating, refusal: tuple[int, bytes]
) -> None:
    authority.mood, authority.refusal = "refusing", refusal
    for _ in range(5):
        await ask(make_service, account)
        await account.wait()
    row = await account.row()
    assert (row["needs_reauth"], row["refusals"]) == (None, 0)


async def test_nothing_counts_while_the_access_token_is_good(
    make_service: MakeService, account: Account, authority: Rotating
) -> None:
    authority.mood = "refusing"
    for asked in range(1, 5):
        await account.age(5)
        await account.wait()
        service = make_service()
        bearer = await service.bearer(account.server, account.principal)
        assert authority.believes(bearer.header.get_secret_value())
        await authority.until_asked(asked)
        await service.close()
    row = await account.row()
    assert (row["needs_reauth"], row["refusals"]) == (None, 0)


# --- metrics


def counted(outcome: str) -> float:
    value = REGISTRY.get_sample_value("chatd_token_refreshes_total", {"outcome": outcome})
    return value or 0.0


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (400, b'{"error": "invalid_grant"}', "invalid_grant"),
        (400, b'{"error": "invalid_request"}', "refused"),
        (500, b"", "unreachable"),
    ],
)
async def test_renewals_are_counted_by_what_came_of_them(
    make_service: MakeService,
    account: Account,
    authority: Rotating,
    status: int,
    body: bytes,
    outcome: str,
) -> None:
    seconds = "chatd_token_refresh_duration_seconds_count"
    before = counted("renewed"), counted(outcome), REGISTRY.get_sample_value(seconds) or 0.0
    await account.age(-1)
    await make_service().bearer(account.server, account.principal)
    authority.mood, authority.refusal = "refusing", (status, body)
    await ask(make_service, account)
    after = counted("renewed"), counted(outcome), REGISTRY.get_sample_value(seconds) or 0.0
    assert [new - old for old, new in zip(before, after, strict=True)] == [1, 1, 2]
