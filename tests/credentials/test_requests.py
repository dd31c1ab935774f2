"""What MCP servers see of tokens: always a good one, and a refused request once more."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr

from chatd.core.servers import ServiceAuth, UserAuth
from chatd.credentials import Credentials
from chatd.credentials.login import Exchanged
from chatd.mcp.errors import ServerFailed
from chatd.mcp.pool import SessionPool
from chatd.outbound import Outbound
from chatd.store.db import Database
from tests.credentials.accounts import (
    CLIENT_ID,
    Account,
    account_of,
    connect,
    make_oauth_server,
    sign_in,
)
from tests.credentials.conftest import MakeService
from tests.credentials.guarded import Guarded
from tests.credentials.rotating import CANARY, Rotating
from tests.mcp.peer import call, running, server_at
from tests.outbound.raw_server import Exchange
from tests.seed import make_user


@pytest.fixture
async def pool(make_service: MakeService, outbound: Outbound) -> AsyncGenerator[SessionPool]:
    credentials = Credentials(make_service())
    made = SessionPool(lambda auth: outbound.mcp_client(auth=auth), credentials)
    yield made
    await made.aclose()


@pytest.fixture(params=[True, False], ids=["modern", "legacy"])
async def peer(request: pytest.FixtureRequest, authority: Rotating) -> AsyncGenerator[Guarded]:
    authority.lifetime_s = 60
    async with running(Guarded(authority, modern=request.param)) as guarded:
        yield guarded


@pytest.fixture
async def account(db: Database, authority: Rotating, peer: Guarded) -> Account:
    return await connect(db, authority, url=peer.url)


async def test_a_call_that_is_refused_for_its_token_is_sent_once_more_with_a_newer_one(
    pool: SessionPool, account: Account, peer: Guarded, authority: Rotating
) -> None:
    """In the same session: it was opened once."""
    await pool.list_tools(account.server, account.principal)
    opened = peer.count("server/discover") + peer.count("initialize")
    authority.expire()
    refused = peer.refusals
    answer = await call(pool, account.server, account.principal, "add", {})
    assert (answer.text, answer.is_error) == ("ok", False)
    assert (peer.count("tools/call"), authority.refreshes) == (1, 1)
    assert peer.refusals - refused >= 1
    assert peer.count("server/discover") + peer.count("initialize") == opened


async def test_connecting_with_a_token_that_is_refused_works_with_a_newer_one(
    pool: SessionPool, account: Account, peer: Guarded, authority: Rotating
) -> None:
    authority.expire()
    listed = await pool.list_tools(account.server, account.principal)
    assert [tool.name for tool in listed.tools] == ["add"]
    assert authority.refreshes == 1


async def test_a_server_that_believes_no_token_is_asked_twice_and_then_left_alone(
    pool: SessionPool, account: Account, peer: Guarded, authority: Rotating
) -> None:
    await pool.list_tools(account.server, account.principal)
    peer.strict, peer.refusals = True, 0
    answer = await call(pool, account.server, account.principal, "add", {})
    assert answer.is_error
    assert (authority.refreshes, peer.count("tools/call")) == (1, 0)
    assert (await account.token()).needs_reauth == "unauthorized"
    refused = peer.refusals
    answer = await call(pool, account.server, account.principal, "add", {})
    assert "connect this server again" in answer.text
    assert peer.refusals == refused


class Tied(Guarded):
    """Its session is good with the token that opened it, and with no other."""

    opened_with = ""

    async def answer(self, exchange: Exchange) -> None:
        header = exchange.headers.get("authorization", "")
        if b'"initialize"' in exchange.body:
            self.opened_with = header
        if exchange.headers.get("mcp-session-id") and header != self.opened_with:
            await exchange.answer(status=401)
        else:
            await super().answer(exchange)


async def test_a_session_that_is_tied_to_its_first_token_is_opened_anew_for_the_next(
    pool: SessionPool, db: Database, authority: Rotating
) -> None:
    authority.lifetime_s = 60
    async with running(Tied(authority, modern=False)) as peer:
        account = await connect(db, authority, url=peer.url)
        await pool.list_tools(account.server, account.principal)
        authority.expire()
        answer = await call(pool, account.server, account.principal, "add", {})
        assert (answer.text, peer.count("initialize")) == ("ok", 2)
    assert (await account.token()).needs_reauth is None
    assert authority.refreshes == 1


async def test_no_server_is_to_blame_for_a_token_that_takes_long(
    pool: SessionPool, account: Account, peer: Guarded, authority: Rotating
) -> None:
    """Or its users would go without it who have one."""
    await account.age(-1)
    authority.mood = "hanging"
    with pytest.raises(ServerFailed, match="not be had in time") as failed:
        await pool.list_tools(account.server, account.principal, timeout_s=0.1)
    assert (failed.value.reason, peer.heard) == ("unavailable", [])


async def test_a_scope_that_is_missing_is_noted_and_the_call_is_not_repeated(
    pool: SessionPool, account: Account, peer: Guarded, authority: Rotating
) -> None:
    peer.missing_scope = "files:write"
    answer = await call(pool, account.server, account.principal, "add", {})
    assert answer.is_error
    row = await account.row()
    assert (row["wanted_scopes"], row["needs_reauth"]) == ("files:write", None)
    assert authority.refreshes == 0
    peer.missing_scope = ""
    assert (await call(pool, account.server, account.principal, "add", {})).text == "ok"


async def test_without_a_token_nothing_is_sent(
    pool: SessionPool, account: Account, peer: Guarded
) -> None:
    await account.db.fetch("DELETE FROM oauth_tokens")
    with pytest.raises(ServerFailed) as failed:
        await pool.list_tools(account.server, account.principal)
    assert failed.value.reason == "auth_required"
    assert (peer.refusals, peer.heard) == (0, [])


async def test_while_no_token_can_be_had_a_server_is_unavailable(
    pool: SessionPool, account: Account, peer: Guarded, authority: Rotating
) -> None:
    await account.age(-1)
    authority.mood = "failing"
    with pytest.raises(ServerFailed) as failed:
        await pool.list_tools(account.server, account.principal)
    assert failed.value.reason == "unavailable"
    assert (peer.refusals, peer.heard) == (0, [])


async def test_identity_goes_beside_the_token(
    pool: SessionPool, db: Database, authority: Rotating, peer: Guarded
) -> None:
    account = await connect(
        db,
        authority,
        url=peer.url,
        forward_coder_headers=True,
        signing_secret=SecretStr("a-long-signing-secret"),
    )
    authority.expire()
    await pool.list_tools(account.server, account.principal)
    headers = peer.last("tools/list").headers
    assert headers["x-coder-owner-id"] == str(account.user_id)
    assert headers["x-coder-signature"].startswith("v1=")
    assert headers["authorization"].startswith("Bearer " + CANARY)


@pytest.mark.parametrize("auth", [UserAuth(type="oauth2"), ServiceAuth()])
async def test_without_a_token_service_nothing_is_sent_anonymously(
    auth: Any, account: Account
) -> None:
    server = server_at(account.server.url, auth=auth)
    with pytest.raises(ServerFailed, match="no token"):
        await Credentials().headers(server, account.principal)


async def test_no_log_line_and_no_answer_holds_a_token(
    pool: SessionPool,
    account: Account,
    peer: Guarded,
    authority: Rotating,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    for mood in ("failing", "refusing_client", "dropping", "well"):
        authority.mood = mood
        await account.age(-1)
        await account.give_up_lease()
        answer = await call(pool, account.server, account.principal, "add", {})
        said.append(answer.text)
    shown = capsys.readouterr()
    audit = await account.db.fetch("SELECT * FROM audit_log")
    errors = await account.db.fetch("SELECT last_error FROM oauth_tokens")
    for text in (caplog.text, shown.out, shown.err, str(said), str(audit), str(errors)):
        assert CANARY not in text


# --- other sources of tokens


async def test_a_login_goes_to_servers_that_want_it(
    pool: SessionPool, db: Database, authority: Rotating, peer: Guarded
) -> None:
    account = await sign_in(db, authority, url=peer.url)
    await account.age(-1)
    await pool.list_tools(account.server, account.principal)
    assert (authority.refreshes, peer.refusals) == (1, 0)


async def test_a_server_that_refuses_a_login_does_not_end_it(
    pool: SessionPool, db: Database, authority: Rotating, peer: Guarded
) -> None:
    """Other servers may take it; and it is renewed for this one only once in a while."""
    account = await sign_in(db, authority, url=peer.url)
    peer.strict = True
    for _ in range(3):
        with pytest.raises(ServerFailed):
            await pool.list_tools(account.server, account.principal)
    assert (await account.token()).needs_reauth is None
    assert authority.refreshes == 1


@pytest.mark.parametrize("audience", ["", "https://api.example"])
async def test_neither_a_login_nor_what_it_was_exchanged_for_is_sent_in_the_clear(
    make_service: MakeService, db: Database, authority: Rotating, audience: str
) -> None:
    account = await sign_in(db, authority, url="http://10.0.0.1/mcp", audience=audience)
    with pytest.raises(ServerFailed, match="without encryption"):
        await Credentials(make_service()).headers(account.server, account.principal)
    assert authority.forms == []


async def test_a_login_is_exchanged_for_a_servers_audience(
    pool: SessionPool, db: Database, authority: Rotating, peer: Guarded
) -> None:
    account = await sign_in(db, authority, url=peer.url, audience="https://api.example")
    for _ in range(2):
        await pool.list_tools(account.server, account.principal)
    (form,) = authority.forms
    login = (await account.token()).access_token.get_secret_value()
    assert (form["audience"], form["subject_token"]) == ("https://api.example", login)
    assert f"Bearer {login}" not in peer.bearers
    assert peer.refusals == 0
    await db.fetch("UPDATE oauth_tokens SET expires_at = now() WHERE server_id IS NOT NULL")
    await pool.list_tools(account.server, account.principal)
    assert (len(authority.forms), peer.refusals) == (2, 0)


async def test_a_login_that_ends_before_it_is_exchanged_is_waited_for_by_nobody(
    make_service: MakeService,
    db: Database,
    authority: Rotating,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account = await sign_in(db, authority, url="https://a.example", audience="https://api.example")

    async def not_found(*_: object) -> None:
        await db.fetch("DELETE FROM oauth_tokens")

    monkeypatch.setattr(Exchanged, "find", not_found)
    async with asyncio.timeout(5):
        with pytest.raises(ServerFailed, match="not connected"):
            await Credentials(make_service()).headers(account.server, account.principal)


async def test_the_deployment_proves_itself_with_a_key(
    pool: SessionPool, db: Database, authority: Rotating, peer: Guarded
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    server_id = await make_oauth_server(
        db,
        authority,
        url=peer.url,
        auth_type="client_credentials",
        oauth2_auth_url="",
        oauth2_auth_method="private_key_jwt",
        oauth2_client_secret=SecretStr(pem),
    )
    account = await account_of(db, server_id, (await make_user(db)).user_id)
    await pool.list_tools(account.server, account.principal)
    (form,) = authority.forms
    claims = jwt.decode(
        form["client_assertion"], key.public_key(), ["ES256"], audience=authority.token_url
    )
    assert (claims["iss"], peer.refusals) == (CLIENT_ID, 0)


async def test_the_deployment_has_an_account_of_its_own(
    pool: SessionPool, db: Database, authority: Rotating, peer: Guarded
) -> None:
    server_id = await make_oauth_server(
        db,
        authority,
        url=peer.url,
        auth_type="client_credentials",
        oauth2_auth_url="",
        oauth2_client_secret=SecretStr("canary-client-secret"),
        oauth2_scopes="read write",
    )
    users: list[UUID] = [(await make_user(db, name)).user_id for name in ("ada", "bob")]
    accounts = [await account_of(db, server_id, user_id) for user_id in users]
    for account in accounts:
        await pool.list_tools(account.server, account.principal)
    (form,) = authority.forms
    assert (form["grant_type"], form["scope"]) == ("client_credentials", "read write")
    assert accounts[0].principal == accounts[1].principal
    authority.expire()
    await pool.list_tools(accounts[0].server, accounts[0].principal)
    await db.fetch("UPDATE oauth_tokens SET expires_at = now()")
    await pool.list_tools(accounts[1].server, accounts[1].principal)
    assert len(authority.forms) == 3
    (row,) = await db.fetch("SELECT user_id, generation FROM oauth_tokens")
    assert (row["user_id"], row["generation"]) == (None, 3)
