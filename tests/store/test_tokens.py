"""Tokens: who they let in, and from when on they do not."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from chatd.core.errors import NotFound
from chatd.store import tokens
from chatd.store.db import Database
from chatd.store.tokens import Token
from chatd.store.users import User, create_user


@pytest.fixture
async def user(db: Database) -> User:
    async with db.transaction() as session:
        return await create_user(session, "ada", role="admin")


async def add(db: Database, user: User, token: str, **fields: Any) -> Token:
    async with db.transaction() as session:
        return await tokens.create_token(session, user.id, token, **fields)


async def revoke(db: Database, token_id: UUID) -> None:
    async with db.transaction() as session:
        await tokens.revoke_token(session, token_id)


async def stored(db: Database, user: User) -> Token:
    async with db.transaction() as session:
        return (await tokens.list_tokens(session, user.id))[0]


async def run(db: Database, sql: str) -> None:
    async with db.transaction() as session:
        await (await session.connection()).execute(text(sql))


async def last_used(db: Database, user: User) -> datetime | None:
    return (await stored(db, user)).last_used_at


async def test_a_token_lets_its_holder_in(db: Database, user: User) -> None:
    text = tokens.new_token()
    token = await add(db, user, text)
    actor = await tokens.authenticate(db, tokens.sha256(text))
    assert actor is not None
    assert (actor.user_id, actor.role, actor.token_id) == (user.id, "admin", token.id)
    assert await tokens.tokens_alive(db, [token.id]) == {token.id}


async def test_only_the_hash_is_kept(db: Database, user: User) -> None:
    text = tokens.new_token()
    assert text.startswith("chatd_")
    assert len(text) >= len("chatd_") + 43
    await add(db, user, text)
    row = await db.fetch_one("SELECT t::text AS whole FROM api_tokens t")
    assert row is not None
    assert text not in row["whole"]
    assert tokens.sha256(text).hex() in row["whole"]


async def test_a_revoked_token_is_refused_at_once(db: Database, user: User) -> None:
    text = tokens.new_token()
    token = await add(db, user, text)
    await revoke(db, token.id)
    first = (await stored(db, user)).revoked_at
    await revoke(db, token.id)
    assert (await stored(db, user)).revoked_at == first
    assert await tokens.authenticate(db, tokens.sha256(text)) is None
    assert await tokens.tokens_alive(db, [token.id]) == set()


async def test_an_expired_token_is_refused(db: Database, user: User) -> None:
    text = tokens.new_token()
    past = datetime.now(UTC) - timedelta(seconds=1)
    token = await add(db, user, text, expires_at=past)
    assert await tokens.authenticate(db, tokens.sha256(text)) is None
    assert await tokens.tokens_alive(db, [token.id]) == set()


async def test_a_suspended_users_token_is_refused(db: Database, user: User) -> None:
    text = tokens.new_token()
    token = await add(db, user, text)
    await run(db, "UPDATE users SET suspended = true")
    assert await tokens.authenticate(db, tokens.sha256(text)) is None
    assert await tokens.tokens_alive(db, [token.id]) == set()


async def test_an_unknown_token_is_refused(db: Database) -> None:
    assert await tokens.authenticate(db, tokens.sha256("chatd_\ud800")) is None
    with pytest.raises(NotFound):
        await revoke(db, uuid4())


async def test_last_use_is_noted_at_most_once_a_minute(db: Database, user: User) -> None:
    text = tokens.new_token()
    await add(db, user, text)
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
