"""Logins: whose they are by issuer and subject."""

from uuid import UUID

import pytest

from chatd.core.chats import Actor
from chatd.core.errors import Conflict, NotFound
from chatd.store import user_links
from chatd.store.db import Database
from chatd.store.oauth_tokens import tokens_of
from tests.seed import KEYS, make_server, make_user
from tests.store.granting import ISSUER, connect


async def link(db: Database, user: Actor, subject: str = "ada", issuer: str = ISSUER) -> UUID:
    async with db.transaction() as session:
        return await user_links.add_link(
            session,
            user.user_id,
            issuer=issuer,
            subject=subject,
            email="ada@example.org",
            claims={"groups": ["crew"]},
        )


@pytest.fixture
async def user(db: Database) -> Actor:
    return await make_user(db)


async def test_a_login_leads_to_its_user(db: Database, user: Actor) -> None:
    made = await link(db, user)
    found = await user_links.find_link(db, ISSUER, "ada")
    assert found is not None
    assert (found.id, found.user_id, found.username) == (made, user.user_id, "ada")
    assert (found.email, found.claims) == ("ada@example.org", {"groups": ["crew"]})
    assert await user_links.links_of(db, user.user_id) == [found]


async def test_neither_half_of_a_login_is_enough(db: Database, user: Actor) -> None:
    await link(db, user)
    assert await user_links.find_link(db, "https://other.example", "ada") is None
    assert await user_links.find_link(db, ISSUER, "Ada") is None


async def test_a_login_has_one_user(db: Database, user: Actor) -> None:
    await link(db, user)
    for somebody in (user, await make_user(db, "eve")):
        with pytest.raises(Conflict):
            await link(db, somebody)
    await link(db, user, issuer="https://other.example")


async def test_what_the_provider_says_is_kept_anew(db: Database, user: Actor) -> None:
    made = await link(db, user)
    async with db.transaction() as session:
        await user_links.note_login(session, made, email="", claims={"groups": []})
    found = await user_links.find_link(db, ISSUER, "ada")
    assert found is not None
    assert (found.email, found.claims) == ("", {"groups": []})
    assert found.last_login_at > found.created_at


async def test_a_link_that_was_taken_away_meanwhile_lets_nobody_in(
    db: Database, user: Actor
) -> None:
    made = await link(db, user)
    async with db.transaction() as session:
        await user_links.remove_link(session, made, user.user_id)
    with pytest.raises(NotFound):
        async with db.transaction() as session:
            await user_links.note_login(session, made, email="", claims={})


async def test_with_a_login_goes_its_token_and_what_came_of_it(db: Database, user: Actor) -> None:
    made = await link(db, user)
    exchanging = await make_server(db, "exchanging", auth_type="user_oidc")
    granted = await make_server(db, "granted", auth_type="oauth2")
    await connect(db, user.user_id)
    await connect(db, user.user_id, exchanging)
    kept = await connect(db, user.user_id, granted)
    stranger = await make_user(db, "eve")
    for somebody, removed in ((stranger, False), (user, True), (user, False)):
        async with db.transaction() as session:
            assert await user_links.remove_link(session, made, somebody.user_id) is removed
    assert await tokens_of(db, KEYS, user.user_id) == [kept]
