"""Users as the store keeps them."""

from typing import Any

import pytest

from chatd.core.errors import BadRequest, Conflict, NotFound
from chatd.store.db import Database
from chatd.store.users import create_user, get_user, list_users


async def add(db: Database, username: str, **fields: Any) -> None:
    async with db.transaction() as session:
        await create_user(session, username, **fields)


async def test_users_are_listed_by_name(db: Database) -> None:
    await add(db, "zoe")
    await add(db, "ada", role="admin", name="Ada L.")
    async with db.transaction() as session:
        listed = await list_users(session)
        assert (await get_user(session, "zoe")).suspended is False
    assert [(user.username, user.role, user.name) for user in listed] == [
        ("ada", "admin", "Ada L."),
        ("zoe", "member", "zoe"),
    ]


async def test_a_name_is_given_once(db: Database) -> None:
    await add(db, "ada")
    with pytest.raises(Conflict, match="ada"):
        await add(db, "ada")


@pytest.mark.parametrize("username", ["", "Ada", "a b", ".a", "a" * 65, "a\x00b", "a\n"])
async def test_a_name_that_will_not_do_is_refused(db: Database, username: str) -> None:
    with pytest.raises(BadRequest, match="Invalid username"):
        await add(db, username)


async def test_an_unknown_user_is_not_found(db: Database) -> None:
    async with db.transaction() as session:
        with pytest.raises(NotFound, match="nobody"):
            await get_user(session, "nobody")
