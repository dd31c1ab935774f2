"""Whether a user is connected: as turns, approvals and lists of servers are told."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from chatd.core.chats import Actor
from chatd.core.servers import McpServer, ServiceAuth, UserAuth
from chatd.store import oauth_tokens, servers
from chatd.store.chat_servers import load_chat_servers, load_server
from chatd.store.db import Database
from chatd.store.loading import TurnLoader
from chatd.store.server_views import View
from tests.seed import KEYS, Seed, make_seed, make_server, make_user
from tests.store.granting import connect


@dataclass(frozen=True)
class World:
    db: Database
    seed: Seed
    server: UUID
    loader: TurnLoader

    async def loaded(self) -> McpServer:
        """As the next turn of the user finds the server."""
        claim = await self.seed.claimed()
        (server,) = (await self.loader.load(claim)).servers
        await self.db.fetch("DELETE FROM chats")
        return server

    async def shown(self, caller: Actor | None = None) -> View:
        caller = caller or self.seed.actor
        async with self.db.transaction() as session:
            (view,) = await servers.list_servers(session, caller=caller.user_id)
            assert await servers.get_server(session, self.server, caller=caller.user_id) == view
        return view

    async def becomes(self, auth_type: str, **columns: str) -> None:
        await self.db.fetch("UPDATE mcp_server_configs SET auth_type = $1", auth_type)
        for column, value in columns.items():
            await self.db.fetch(f"UPDATE mcp_server_configs SET {column} = $1", value)

    async def connect(self, *, login: bool = False, **fields: Any) -> UUID:
        server = None if login else self.server
        return (await connect(self.db, self.seed.actor.user_id, server, **fields)).id


@pytest.fixture
async def world(db: Database) -> World:
    server = await make_server(db, auth_type="oauth2", availability="force_on")
    return World(db, await make_seed(db), server, TurnLoader(db, KEYS))


async def test_a_turn_is_told_of_its_owners_connection(world: World) -> None:
    assert (await world.loaded()).auth == UserAuth(type="oauth2")
    token = await world.connect()
    assert (await world.loaded()).auth == UserAuth(type="oauth2", connection_id=token)
    await oauth_tokens.mark_reauth(world.db, token, generation=1, reason="invalid_grant")
    auth = (await world.loaded()).auth
    assert isinstance(auth, UserAuth)
    assert (auth.connection_id, auth.needs_reauth) == (token, "invalid_grant")
    assert not auth.connected
    anew = await world.connect()
    assert (await world.loaded()).auth == UserAuth(type="oauth2", connection_id=anew)


async def test_a_turn_is_not_told_of_another_users_connection(world: World) -> None:
    eve = await make_user(world.db, "eve")
    token = (await connect(world.db, eve.user_id, world.server)).id
    hers = Seed(world.db, eve, world.seed.model_id)
    (server,) = (await world.loader.load(await hers.claimed())).servers
    assert server.auth == UserAuth(type="oauth2", connection_id=token)
    assert (await world.loaded()).auth == UserAuth(type="oauth2")


async def test_a_login_counts_for_user_oidc_and_for_nothing_else(world: World) -> None:
    login = await world.connect(login=True)
    assert (await world.loaded()).auth == UserAuth(type="oauth2")
    await world.becomes("user_oidc", oidc_audience="tickets")
    expected = UserAuth(type="user_oidc", connection_id=login, audience="tickets")
    assert (await world.loaded()).auth == expected
    exchanged = await world.connect()
    assert exchanged != login
    assert (await world.loaded()).auth == expected


async def test_the_deployments_own_token_needs_no_user(world: World) -> None:
    await world.becomes("client_credentials")
    server = await world.loaded()
    assert server.auth == ServiceAuth()
    assert (await world.shown())["auth_connected"] is True


async def test_what_ran_out_and_cannot_be_refreshed_has_to_be_made_anew(world: World) -> None:
    await world.connect(expires_in_s=0.0)
    auth = (await world.loaded()).auth
    assert isinstance(auth, UserAuth)
    assert auth.connected
    await world.connect(expires_in_s=0.0, refresh_token=None)
    auth = (await world.loaded()).auth
    assert isinstance(auth, UserAuth)
    assert auth.needs_reauth == "expired"
    view = await world.shown()
    assert (view["auth_connected"], view["needs_reauth"]) == (False, "expired")


async def test_a_reason_of_a_later_release_still_means_to_connect_again(world: World) -> None:
    token = await world.connect()
    await world.db.fetch("ALTER TABLE oauth_tokens DROP CONSTRAINT ck_oauth_tokens_needs_reauth")
    await world.db.fetch("UPDATE oauth_tokens SET needs_reauth = 'moon phase'")
    auth = (await world.loaded()).auth
    assert auth == UserAuth(type="oauth2", connection_id=token, needs_reauth="unauthorized")


async def test_chats_and_trials_see_the_connection_of_who_asks(world: World) -> None:
    token = await world.connect()
    connected = UserAuth(type="oauth2", connection_id=token)
    chat_id = await world.seed.chat_id()
    known = await load_chat_servers(world.db, KEYS, world.seed.actor.user_id, chat_id)
    assert [server.auth for server in known.servers] == [connected]
    assert known.situation.unauthorised_ids == frozenset()
    for user_id, auth in (
        (world.seed.actor.user_id, connected),
        ((await make_user(world.db, "eve")).user_id, UserAuth(type="oauth2")),
        (None, UserAuth(type="oauth2")),
    ):
        assert (await load_server(world.db, KEYS, world.server, user_id)).auth == auth


async def test_a_list_of_servers_tells_each_caller_of_their_own(world: World) -> None:
    token = await world.connect()
    view = await world.shown()
    assert (view["auth_connected"], view["needs_reauth"]) == (True, None)
    view = await world.shown(await make_user(world.db, "eve"))
    assert (view["auth_connected"], view["needs_reauth"]) == (False, None)
    await oauth_tokens.mark_reauth(world.db, token, generation=1, reason="client_changed")
    view = await world.shown()
    assert (view["auth_connected"], view["needs_reauth"]) == (False, "client_changed")


async def test_a_list_of_servers_tells_whether_the_login_serves(world: World) -> None:
    await world.becomes("user_oidc")
    assert (await world.shown())["auth_connected"] is False
    await world.connect(login=True)
    assert (await world.shown())["auth_connected"] is True


async def test_a_list_of_servers_has_no_token_in_it(world: World) -> None:
    await world.connect()
    told = repr(await world.shown())
    assert "access first" not in told
    assert "refresh first" not in told
