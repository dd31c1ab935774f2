"""Users as the store keeps them."""

import pytest

from chatd.core.errors import BadRequest, Conflict, NotFound
from chatd.store.db import Database
from chatd.store.users import create_user, get_user, list_users


async def test_users_are_listed_by_name(db: Database) -> None:
    await create_user(db, "zoe")
    await create_user(db, "ada", role="admin", name="Ada L.")
    assert [(user.username, user.role, user.name) for user in await list_users(db)] == [
        ("ada", "admin", "Ada L."),
        ("zoe", "member", "zoe"),
    ]
    assert (await get_user(db, "zoe")).suspended is False


async def test_a_name_is_given_once(db: Database) -> None:
    await create_user(db, "ada")
    with pytest.raises(Conflict, match="ada"):
        await create_user(db, "ada")


@pytest.mark.parametrize("username", ["", "Ada", "a b", ".a", "a" * 65, "a\x00b", "a\n"])
async def test_a_name_that_will_not_do_is_refused(db: Database, username: str) -> None:
    with pytest.raises(BadRequest, match="Invalid username"):
        await create_user(db, username)


async def test_an_unknown_user_is_not_found(db: Database) -> None:
    with pytest.raises(NotFound, match="nobody"):
        await get_user(db, "nobody")
