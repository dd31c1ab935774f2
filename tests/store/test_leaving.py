"""What becomes of a user's connections and logins when they are exported, suspended, erased."""

from typing import Any

import orjson
import pytest

from chatd.store import oauth_states, oauth_tokens, sessions, user_links, users
from chatd.store.db import Database
from chatd.store.erasing import erase_user
from chatd.store.exporting import export_user
from chatd.store.oauth_states import NewState
from tests.seed import KEYS, Seed, make_server, make_user
from tests.store.granting import ISSUER, connect

TABLES = ("oauth_tokens", "oauth_states", "sessions", "user_links")


@pytest.fixture
async def flow(seed: Seed) -> NewState:
    """That of a user who has everything that one can have."""
    db, user_id = seed.db, seed.actor.user_id
    server = await make_server(db, auth_type="oauth2")
    await connect(db, user_id, server)
    await connect(db, user_id)
    async with db.transaction() as session:
        await sessions.create_session(session, user_id, seconds=60.0)
        await user_links.add_link(
            session, user_id, issuer=ISSUER, subject="ada", email="a@b.c", claims={"sub": "ada"}
        )
    return await oauth_states.create_state(
        db, KEYS, kind="state", data={}, seconds=60.0, user_id=user_id, cookie="browser"
    )


async def left(db: Database) -> dict[str, int]:
    return {table: len(await db.fetch(f"SELECT 1 FROM {table}")) for table in TABLES}


async def test_an_export_lists_connections_and_logins_without_secrets(
    seed: Seed, flow: NewState
) -> None:
    told = b"".join([lines async for lines in export_user(seed.db, seed.actor.user_id)])
    lines: list[Any] = [orjson.loads(line) for line in told.splitlines()]
    connections = [line for line in lines if line["type"] == "connection"]
    assert [line["server"] for line in connections] == ["demo", None]
    assert [line["scopes"] for line in connections] == ["read write", "read write"]
    (login,) = [line for line in lines if line["type"] == "login"]
    assert (login["issuer"], login["subject"], login["email"]) == (ISSUER, "ada", "a@b.c")
    assert len([line for line in lines if line["type"] == "session"]) == 1
    assert b"token" not in told.replace(b"input_tokens", b"")
    assert b"sha256" not in told
    assert flow.secret.encode() not in told


async def test_who_is_suspended_is_signed_out_and_ends_no_flow(seed: Seed, flow: NewState) -> None:
    before = await oauth_tokens.tokens_of(seed.db, KEYS, seed.actor.user_id)
    async with seed.db.transaction() as session:
        await users.update_user(session, seed.actor.user_id, {"suspended": True})
    used = await oauth_states.use_state(seed.db, KEYS, flow.secret, kind="state", cookie="browser")
    assert used is None
    assert await seed.db.fetch("SELECT 1 FROM sessions WHERE revoked_at IS NULL") == []
    assert await oauth_tokens.tokens_of(seed.db, KEYS, seed.actor.user_id) == before


async def test_another_change_signs_nobody_out(seed: Seed, flow: NewState) -> None:
    async with seed.db.transaction() as session:
        await users.update_user(session, seed.actor.user_id, {"name": "Ada"})
    assert flow.secret
    assert len(await seed.db.fetch("SELECT 1 FROM sessions WHERE revoked_at IS NULL")) == 1


async def test_with_a_user_goes_what_they_granted(seed: Seed, flow: NewState) -> None:
    eve = await make_user(seed.db, "eve")
    await connect(seed.db, eve.user_id)
    assert flow.secret
    assert await left(seed.db) == dict(zip(TABLES, (3, 1, 1, 1), strict=True))
    await erase_user(seed.db, seed.actor.user_id)
    assert await left(seed.db) == dict(zip(TABLES, (1, 0, 0, 0), strict=True))


async def test_with_a_server_goes_what_was_granted_for_it(seed: Seed, flow: NewState) -> None:
    assert flow.secret
    await seed.db.fetch("DELETE FROM mcp_server_configs")
    (token,) = await oauth_tokens.tokens_of(seed.db, KEYS, seed.actor.user_id)
    assert token.server_id is None
