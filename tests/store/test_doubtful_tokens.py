"""Tokens marked for what may be over: turns try them when it is time, users see the reason."""

from datetime import timedelta

import pytest

from chatd.core.servers import UserAuth
from chatd.store import oauth_tokens
from chatd.store.accounts import read_account
from tests.seed import change_server
from tests.store.test_connected import World, world

__all__ = ["world"]


async def mark(world: World, reason: str, *, ago: timedelta) -> None:
    await world.connect()
    await world.db.fetch(
        "UPDATE oauth_tokens SET needs_reauth = $1, retry_at = clock_timestamp() - $2::interval",
        reason,
        ago,
    )


async def tried(world: World) -> bool:
    auth = (await world.loaded()).auth
    assert isinstance(auth, UserAuth)
    return auth.connected


@pytest.mark.parametrize("reason", ["unauthorized", "refresh_refused", "tampered"])
async def test_turns_try_them_when_it_is_time_and_lists_still_say_to_connect(
    world: World, reason: str
) -> None:
    await world.becomes("oauth2", oauth2_client_id="ours")
    await mark(world, reason, ago=-timedelta(minutes=1))
    assert not await tried(world)
    await mark(world, reason, ago=timedelta())
    assert await tried(world)
    view = await world.shown()
    assert (view["auth_connected"], view["needs_reauth"]) == (False, reason)
    assert view["connect_url"]


@pytest.mark.parametrize("reason", ["invalid_grant", "client_changed"])
async def test_what_is_final_is_tried_by_no_turn(world: World, reason: str) -> None:
    await mark(world, reason, ago=timedelta(hours=1))
    assert not await tried(world)


async def test_a_new_connection_has_nothing_held_against_it(world: World) -> None:
    await mark(world, "unauthorized", ago=-timedelta(hours=1))
    token = await world.connect()
    assert await tried(world)
    assert await oauth_tokens.mark_reauth(world.db, token, generation=1, reason="unauthorized") == 1


@pytest.mark.parametrize("reason", ["unauthorized", "refresh_refused", "tampered"])
async def test_they_do_not_follow_a_server_to_another_host(world: World, reason: str) -> None:
    await mark(world, reason, ago=timedelta())
    await change_server(
        world.db,
        world.server,
        auth_type="oauth2",
        availability="force_on",
        url="https://new.example/mcp",
    )
    assert (await world.shown())["needs_reauth"] == "client_changed"
    assert not await tried(world)


async def test_scopes_that_were_granted_are_not_missing(world: World) -> None:
    token = await world.connect()
    await world.db.fetch("UPDATE oauth_tokens SET scopes = 'read', wanted_scopes = 'read write'")
    account = await read_account(world.db, token)
    assert account is not None
    assert (account.wants_more, account.missing_scopes) == (True, ("write",))
