"""Connecting to MCP servers behind authorization servers that nobody here wrote."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest

from tests.e2e.client import Client, call
from tests.e2e.fleet import Fleet, Process, registered
from tests.e2e.view import text_of
from tests.peers.browser import follow
from tests.peers.programs import start_oidc_provider
from tests.peers.protected import Introspected, Signed, protected_by, protecting_itself
from tests.peers.sdk_authority import SUBJECT, SdkAuthority

SLUG = "guarded"
WHO = call(f"{SLUG}__who")
SHORT_S = 2
LONG_S = 300


@dataclass(frozen=True)
class Guarded:
    """An MCP server as chatd has it, and the authorization server that it leads to."""

    config: dict[str, Any]
    provider: str
    seen: Introspected | Signed

    @property
    def only(self) -> dict[str, Any]:
        """What makes a message use this server."""
        return {"mcp_server_ids": [self.config["id"]]}

    @property
    def place(self) -> str:
        return f"/mcp/servers/{self.config['id']}"

    async def stats(self) -> dict[str, Any]:
        return await self._ask("/stats")

    async def revoke(self) -> None:
        """Whatever was granted to anybody."""
        await self._ask("/revoke")

    async def forget(self) -> None:
        """Also whom it has registered."""
        await self._ask("/forget")

    async def _ask(self, path: str) -> dict[str, Any]:
        async with httpx2.AsyncClient(trust_env=False, verify=False) as http:
            answer = await http.post(self.provider + path)
        answer.raise_for_status()
        return answer.json()


@asynccontextmanager
async def _guarded(
    folder: Path, admin: Client, lifetime_s: int, *, signed: bool = False
) -> AsyncGenerator[Guarded]:
    """The administrator gives nothing but a URL."""
    tokens = "jwt" if signed else "opaque"
    peer = await start_oidc_provider(folder, lifetime_s=lifetime_s, tokens=tokens)
    try:
        seen = Signed(peer.url) if signed else Introspected(peer.url)
        async with (
            protected_by(seen) as url,
            registered(admin, SLUG, url, auth_type="oauth2") as made,
        ):
            yield Guarded(made, peer.url, seen)
    finally:
        await peer.child.stop()


@pytest.fixture
async def guarded(packages: Path, services_folder: Path, admin: Client) -> AsyncGenerator[Guarded]:
    async with _guarded(services_folder, admin, LONG_S) as made:
        yield made


@pytest.fixture
async def hurried(packages: Path, services_folder: Path, admin: Client) -> AsyncGenerator[Guarded]:
    """Its access tokens are over before a turn is."""
    async with _guarded(services_folder, admin, SHORT_S) as made:
        yield made


@pytest.fixture
async def signed(packages: Path, services_folder: Path, admin: Client) -> AsyncGenerator[Guarded]:
    """Its access tokens say themselves for whom they are, and are over before a turn is."""
    async with _guarded(services_folder, admin, SHORT_S, signed=True) as made:
        yield made


async def _connect(member: Client, server: dict[str, Any]) -> None:
    asked = await member.post(f"/mcp/servers/{server['id']}/oauth2/connect", {})
    page = await follow(asked["connect_url"])
    assert (page.status_code, page.url.path.rpartition("/")[2]) == (200, "callback"), page.text


async def _who(member: Client, **only: Any) -> str:
    """For whom the tool says that we call it."""
    turn, messages = await member.run(WHO, "/echo", **only)
    assert (turn["status"], turn["notices"]) == ("completed", [])
    return text_of(messages[-1])


async def test_a_url_and_a_click_are_all_it_takes(
    worker: Process, admin: Client, member: Client, guarded: Guarded
) -> None:
    assert guarded.config["oauth2_issuer"] == guarded.provider
    assert guarded.config["oauth2_client_source"] == "registered"
    await _connect(member, guarded.config)
    assert (await member.get(guarded.place))["auth_connected"]
    assert not (await admin.get(guarded.place))["auth_connected"]
    assert await _who(member, **guarded.only) == "somebody"
    assert await guarded.stats() == {
        "registrations": 1,
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
    await _connect(member, hurried.config)
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
    await _connect(member, signed.config)
    assert await _who(member, **signed.only) == "somebody"
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
    await _connect(member, signed.config)
    turn, _ = await member.run("/tools", **signed.only)
    assert [notice["code"] for notice in turn["notices"]] == ["mcp_auth_required"]
    assert "InvalidAudienceError" in signed.seen.reasons
    assert set(signed.seen.believed) == used


async def test_an_ended_grant_is_told_and_can_be_made_again(
    worker: Process, member: Client, guarded: Guarded
) -> None:
    await _connect(member, guarded.config)
    await _who(member, **guarded.only)
    await guarded.revoke()
    turn, (_, _, result, _) = await member.run(WHO, "/say it is over", **guarded.only)
    assert result["content"][0]["is_error"]
    assert [notice["code"] for notice in turn["notices"]] == ["mcp_auth_required"]
    assert (await member.get(guarded.place))["needs_reauth"] == "invalid_grant"
    async with member.watching(turn["chat_id"]) as watch:
        posted = await member.say(turn["chat_id"], "/tools", **guarded.only)
        await watch.over(posted.turn_id)
    (notice,) = watch.view.notices
    assert (notice["code"], notice["server_id"]) == ("mcp_auth_required", guarded.config["id"])
    assert notice["connect_url"].endswith(f"{guarded.place}/oauth2/connect")
    await _connect(member, guarded.config)
    assert (await member.get(guarded.place))["needs_reauth"] is None
    assert await _who(member, **guarded.only) == "somebody"


async def test_an_administrator_can_register_anew_where_clients_were_forgotten(
    worker: Process, admin: Client, member: Client, guarded: Guarded
) -> None:
    await _connect(member, guarded.config)
    await _who(member, **guarded.only)
    await guarded.forget()
    anew = {"register_client": True}
    answer = await admin.http.post(f"{guarded.place}/oauth2/discover", json=anew)
    assert answer.status_code == 200, answer.text
    await member.run(WHO, "/say it is over", **guarded.only)
    assert (await member.get(guarded.place))["needs_reauth"] == "client_changed"
    await _connect(member, guarded.config)
    assert await _who(member, **guarded.only) == "somebody"
    assert (await guarded.stats())["registrations"] == 2


async def test_clients_that_were_forgotten_are_registered_anew_by_themselves(
    worker: Process, member: Client, guarded: Guarded
) -> None:
    await _connect(member, guarded.config)
    await _who(member, **guarded.only)
    await guarded.forget()
    await member.run(WHO, "/say it is over", **guarded.only)
    assert (await member.get(guarded.place))["needs_reauth"] == "client_changed"
    await _connect(member, guarded.config)
    assert await _who(member, **guarded.only) == "somebody"
    assert (await guarded.stats())["registrations"] == 2


async def test_a_disconnected_account_is_revoked_there_too(
    worker: Process, member: Client, guarded: Guarded
) -> None:
    await _connect(member, guarded.config)
    await _who(member, **guarded.only)
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
        await _connect(member, made)
        assert await _who(member, mcp_server_ids=[made["id"]]) == SUBJECT
        authority.access.clear()
        assert await _who(member, mcp_server_ids=[made["id"]]) == SUBJECT
        ended = await member.http.delete(f"/mcp/servers/{made['id']}/oauth2/disconnect")
    assert ended.json() == {"token_revoked": True, "token_revocation_error": ""}
    assert not authority.access
    assert not authority.refresh
