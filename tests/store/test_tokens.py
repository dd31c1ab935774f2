"""Tokens: who they let in, and from when on they do not."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text

from chatd.core.errors import NotFound
from chatd.store import tokens
from chatd.store.db import Database
from chatd.store.users import User, create_user


@pytest.fixture
async def user(db: Database) -> User:
    return await create_user(db, "ada", role="admin")


async def run(db: Database, sql: str) -> None:
    async with db.transaction() as session:
        await (await session.connection()).execute(text(sql))


async def last_used(db: Database, user: User) -> datetime | None:
    return (await tokens.list_tokens(db, user.id))[0].last_used_at


async def test_a_token_lets_its_holder_in(db: Database, user: User) -> None:
    text = tokens.new_token()
    token = await tokens.create_token(db, user.id, text)
    actor = await tokens.authenticate(db, tokens.sha256(text))
    assert actor is not None
    assert (actor.user_id, actor.role, actor.token_id) == (user.id, "admin", token.id)
    assert await tokens.token_alive(db, token.id)


async def test_only_the_hash_is_kept(db: Database, user: User) -> None:
    text = tokens.new_token()
    assert text.startswith("chatd_")
    assert len(text) >= len("chatd_") + 43
    await tokens.create_token(db, user.id, text)
    row = await db.fetch_one("SELECT t::text AS whole FROM api_tokens t")
    assert row is not None
    assert text not in row["whole"]
    assert tokens.sha256(text).hex() in row["whole"]


async def test_a_revoked_token_is_refused_at_once(db: Database, user: User) -> None:
    text = tokens.new_token()
    token = await tokens.create_token(db, user.id, text)
    await tokens.revoke_token(db, token.id)
    first = (await tokens.list_tokens(db, user.id))[0].revoked_at
    await tokens.revoke_token(db, token.id)
    assert (await tokens.list_tokens(db, user.id))[0].revoked_at == first
    assert await tokens.authenticate(db, tokens.sha256(text)) is None
    assert not await tokens.token_alive(db, token.id)


async def test_an_expired_token_is_refused(db: Database, user: User) -> None:
    text = tokens.new_token()
    past = datetime.now(UTC) - timedelta(seconds=1)
    token = await tokens.create_token(db, user.id, text, expires_at=past)
    assert await tokens.authenticate(db, tokens.sha256(text)) is None
    assert not await tokens.token_alive(db, token.id)


async def test_a_suspended_users_token_is_refused(db: Database, user: User) -> None:
    text = tokens.new_token()
    token = await tokens.create_token(db, user.id, text)
    await run(db, "UPDATE users SET suspended = true")
    assert await tokens.authenticate(db, tokens.sha256(text)) is None
    assert not await tokens.token_alive(db, token.id)


async def test_an_unknown_token_is_refused(db: Database) -> None:
    assert await tokens.authenticate(db, tokens.sha256("chatd_\ud800")) is None
    with pytest.raises(NotFound):
        await tokens.revoke_token(db, uuid4())


async def test_last_use_is_noted_at_most_once_a_minute(db: Database, user: User) -> None:
    text = tokens.new_token()
    await tokens.create_token(db, user.id, text)
    assert await last_used(db, user) is None
    await tokens.authenticate(db, tokens.sha256(text))
    first = await last_used(db, user)
    assert first is not None
    await tokens.authenticate(db, tokens.sha256(text))
    assert await last_used(db, user) == first
    await run(db, "UPDATE api_tokens SET last_used_at = last_used_at - interval '61 seconds'")
    await tokens.authenticate(db, tokens.sha256(text))
    later = await last_used(db, user)
    assert later is not None
    assert later > first
