"""Connecting to MCP servers behind authorization servers that nobody here wrote."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import jwt
import pytest

from chatd.store.db import Database
from tests.e2e.client import Client, call
from tests.e2e.fleet import Fleet, Process, registered
from tests.peers.guarded import SLUG, WHO, Guarded, connect, guarding, who
from tests.peers.protected import Signed, protecting_itself
from tests.peers.sdk_authority import SUBJECT, SdkAuthority

SHORT_S = 2
LONG_S = 300


@pytest.fixture
async def guarded(packages: Path, services_folder: Path, admin: Client) -> AsyncGenerator[Guarded]:
    async with guarding(services_folder, admin, LONG_S) as made:
        yield made


@pytest.fixture
async def hurried(packages: Path, services_folder: Path, admin: Client) -> AsyncGenerator[Guarded]:
    """Its access tokens are over before a turn is."""
    async with guarding(services_folder, admin, SHORT_S) as made:
        yield made


@pytest.fixture
async def signed(packages: Path, services_folder: Path, admin: Client) -> AsyncGenerator[Guarded]:
    """Its access tokens say themselves for whom they are, and are over before a turn is."""
    async with guarding(services_folder, admin, SHORT_S, signed=True) as made:
        yield made


async def test_a_url_and_a_click_are_all_it_takes(
    worker: Process, admin: Client, member: Client, guarded: Guarded
) -> None:
    assert guarded.config["oauth2_issuer"] == guarded.provider
    assert guarded.config["oauth2_client_source"] == "registered"
    await connect(member, guarded.config)
    assert (await member.get(guarded.place))["auth_connected"]
    assert not (await admin.get(guarded.place))["auth_connected"]
    assert await who(member, **guarded.only) == "somebody"
    assert await guarded.stats() == {
        "registrations": 1,
        "documents": 0,
        "codes": 1,
        "refreshes": 0,
        "refused": [],
        "reuses": 0,
        "revocations": 0,
    }


async def test_turns_on_two_workers_outlive_many_tokens(
    crew: Fleet, member: Client, hurried: Guarded
) -> None:
    await asyncio.gather(crew.worker(capacity=2), crew.worker(capacity=2))
    await connect(member, hurried.config)
    # No two are the same, else the model would seem to go round in circles.
    lines = [call(f"{SLUG}__slow", seconds=0.2 + number / 1000, steps=1) for number in range(20)]
    turns = await asyncio.gather(*(member.create(*lines, **hurried.only) for _ in range(4)))
    for posted in turns:
        turn = await member.ended(posted)
        assert (turn["error"], turn["attempt"], turn["notices"]) == (None, 1, []), turn
        parts = [part for said in await member.messages(posted) for part in said["content"]]
        results = [part for part in parts if part["type"] == "tool-result"]
        assert [part["is_error"] for part in results] == [False] * len(lines)
    stats = await hurried.stats()
    assert (stats["refused"], stats["reuses"]) == ([], 0)
    assert stats["refreshes"] >= 3
    # It was asked for no token that was not needed; the last may have come too late for any call.
    used = set(hurried.seen.believed)
    assert stats["codes"] + stats["refreshes"] - len(used) <= 1
    # It counts whole seconds: a token may be over a second before what it has said of it.
    assert set(hurried.seen.refused) <= used
    logs = b"".join(crew.logs().values())
    assert [token for token in used if token.encode() in logs] == []


async def test_every_token_is_for_the_server_that_it_is_sent_to(
    worker: Process, admin: Client, member: Client, signed: Guarded
) -> None:
    assert isinstance(signed.seen, Signed)
    resource = signed.seen.resource
    assert (signed.config["oauth2_resource"], signed.seen.believed) == (resource, [])
    await connect(member, signed.config)
    assert await who(member, **signed.only) == "somebody"
    lines = [call(f"{SLUG}__slow", seconds=0.2 + number / 1000, steps=1) for number in range(12)]
    turn = await member.ended(await member.create(*lines, **signed.only))
    assert (turn["error"], turn["notices"]) == (None, [])
    assert (await signed.stats())["refreshes"] >= 1
    used = set(signed.seen.believed)
    assert len(used) >= 2
    for token in used:
        claims = jwt.decode(token, options={"verify_signature": False})
        assert (claims["aud"], claims["iss"]) == (resource, signed.provider)
    assert signed.seen.reasons <= {"ExpiredSignatureError"}
    # As it would be if what we send were wrong.
    answer = await admin.http.patch(signed.place, json={"oauth2_resource": f"{resource}/other"})
    assert answer.status_code == 200, answer.text
    await connect(member, signed.config)
    turn, _ = await member.run("/tools", **signed.only)
    assert [notice["code"] for notice in turn["notices"]] == ["mcp_auth_required"]
    assert "InvalidAudienceError" in signed.seen.reasons
    assert set(signed.seen.believed) == used


async def test_an_ended_grant_is_told_and_can_be_made_again(
    worker: Process, member: Client, guarded: Guarded
) -> None:
    await connect(member, guarded.config)
    await who(member, **guarded.only)
    await guarded.revoke()
    turn, (_, _, result, _) = await member.run(WHO, "/say it is over", **guarded.only)
    assert result["content"][0]["is_error"]
    assert [notice["code"] for notice in turn["notices"]] == ["mcp_auth_required"]
    assert (await member.get(guarded.place))["needs_reauth"] == "invalid_grant"
    turn, _ = await member.run("/tools", **guarded.only)
    (notice,) = turn["notices"]
    assert (notice["code"], notice["server_id"]) == ("mcp_auth_required", guarded.config["id"])
    assert notice["connect_url"].endswith(f"{guarded.place}/oauth2/connect")
    await connect(member, guarded.config)
    assert (await member.get(guarded.place))["needs_reauth"] is None
    assert await who(member, **guarded.only) == "somebody"


async def test_a_refresh_token_that_is_used_twice_ends_all_that_came_of_the_login(
    worker: Process, member: Client, guarded: Guarded, db: Database
) -> None:
    """As after a backup of the database was put back."""
    mine = "WHERE server_id = $1"
    await connect(member, guarded.config)
    await who(member, **guarded.only)
    server_id = guarded.config["id"]
    (spent,) = await db.fetch(
        f"SELECT refresh_token, refresh_token_key_id FROM oauth_tokens {mine}", server_id
    )
    await db.fetch(f"UPDATE oauth_tokens SET expires_at = now() {mine}", server_id)
    await who(member, **guarded.only)
    newest = guarded.seen.believed[-1]
    assert await guarded.seen.verify_token(newest) is not None
    await db.fetch(
        f"""UPDATE oauth_tokens SET expires_at = now(), refresh_token = $2,
            refresh_token_key_id = $3 {mine}""",
        server_id,
        *spent.values(),
    )
    turn, _ = await member.run(WHO, "/say it is over", **guarded.only)
    assert [notice["code"] for notice in turn["notices"]] == ["mcp_auth_required"]
    assert (await member.get(guarded.place))["needs_reauth"] == "invalid_grant"
    stats = await guarded.stats()
    assert (stats["refreshes"], stats["refused"], stats["reuses"]) == (1, ["invalid_grant"], 1)
    assert await guarded.seen.verify_token(newest) is None
    await connect(member, guarded.config)
    assert await who(member, **guarded.only) == "somebody"


async def test_an_administrator_can_register_anew_where_clients_were_forgotten(
    worker: Process, admin: Client, member: Client, guarded: Guarded
) -> None:
    await connect(member, guarded.config)
    await who(member, **guarded.only)
    await guarded.forget()
    anew = {"register_client": True}
    answer = await admin.http.post(f"{guarded.place}/oauth2/discover", json=anew)
    assert answer.status_code == 200, answer.text
    await member.run(WHO, "/say it is over", **guarded.only)
    assert (await member.get(guarded.place))["needs_reauth"] == "client_changed"
    await connect(member, guarded.config)
    assert await who(member, **guarded.only) == "somebody"
    assert (await guarded.stats())["registrations"] == 2


async def test_clients_that_were_forgotten_are_registered_anew_by_themselves(
    worker: Process, member: Client, guarded: Guarded
) -> None:
    await connect(member, guarded.config)
    await who(member, **guarded.only)
    await guarded.forget()
    await member.run(WHO, "/say it is over", **guarded.only)
    assert (await member.get(guarded.place))["needs_reauth"] == "client_changed"
    await connect(member, guarded.config)
    assert await who(member, **guarded.only) == "somebody"
    assert (await guarded.stats())["registrations"] == 2


async def test_a_disconnected_account_is_revoked_there_too(
    worker: Process, member: Client, guarded: Guarded
) -> None:
    await connect(member, guarded.config)
    await who(member, **guarded.only)
    ended = await member.http.delete(f"{guarded.place}/oauth2/disconnect")
    assert ended.json() == {"token_revoked": True, "token_revocation_error": ""}
    assert (await guarded.stats())["revocations"] == 1
    assert await guarded.seen.verify_token(guarded.seen.believed[-1]) is None
    turn, _ = await member.run("/tools", **guarded.only)
    assert [notice["code"] for notice in turn["notices"]] == ["mcp_auth_required"]


async def test_the_sdks_own_authorization_server_works_as_well(
    worker: Process, admin: Client, member: Client
) -> None:
    authority = SdkAuthority()
    async with (
        protecting_itself(lambda _: authority) as url,
        registered(admin, SLUG, url, auth_type="oauth2") as made,
    ):
        await connect(member, made)
        assert await who(member, mcp_server_ids=[made["id"]]) == SUBJECT
        authority.access.clear()
        assert await who(member, mcp_server_ids=[made["id"]]) == SUBJECT
        ended = await member.http.delete(f"/mcp/servers/{made['id']}/oauth2/disconnect")
    assert ended.json() == {"token_revoked": True, "token_revocation_error": ""}
    assert not authority.access
    assert not authority.refresh
