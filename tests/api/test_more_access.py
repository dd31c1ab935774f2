"""A server that lists nothing before it is given more access, as a chat's tools show it."""

from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI

from chatd.store.db import Database
from tests.api.conftest import Person
from tests.api.test_connect_links import dropped, link
from tests.credentials.accounts import keep
from tests.credentials.rotating import Rotating
from tests.mcp.peer import Peer, running
from tests.outbound.raw_server import Exchange
from tests.seed import make_server


@pytest.fixture
async def peer() -> AsyncGenerator[Peer]:
    async with running(Peer()) as server:
        yield server


def forbids(challenge: str = "") -> Any:
    async def answer(exchange: Exchange, message: dict[str, Any]) -> None:
        header = f"www-authenticate: {challenge}\r\n" if challenge else ""
        await exchange.answer(status=403, headers=header)

    return answer


async def connected(app: FastAPI, db: Database, member: Person, peer: Peer) -> str:
    server = await make_server(
        db,
        "notion",
        url=peer.url,
        availability="default_on",
        auth_type="oauth2",
        oauth2_client_id="chatd",
        oauth2_auth_url="https://sso.example/authorize",
        oauth2_token_url="https://sso.example/token",
    )
    me, authority = UUID((await member.get("/users/me")).json()["id"]), Rotating(60)
    keys = app.state.parts.keys
    await keep(db, authority, authority.grant(), server_id=server, user_id=me, keys=keys)
    return str(server)


async def test_scopes_that_a_server_misses_are_shown_with_the_link(
    app: FastAPI, db: Database, member: Person, model: str, peer: Peer
) -> None:
    server = await connected(app, db, member, peer)
    peer.says["tools/list"] = forbids('Bearer error="insufficient_scope", scope="pages:read"')
    drop = await dropped(member)
    assert (drop["reason"], drop["needs_reauth"]) == ("auth_required", "insufficient_scope")
    assert (drop["connect_url"], drop["wanted_scopes"]) == (link(server), ["pages:read"])
    assert "more access" in drop["message"]


async def test_a_server_that_forbids_for_reasons_of_its_own_has_no_link(
    app: FastAPI, db: Database, member: Person, model: str, peer: Peer
) -> None:
    await connected(app, db, member, peer)
    peer.says["tools/list"] = forbids()
    drop = await dropped(member)
    assert drop["reason"] == "forbidden"
    assert "connect_url" not in drop
