"""Erasing a user whose chats cannot all be deleted."""

from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError

from chatd.store.erasing import delete_chats
from tests.seed import Seed


async def break_chat(seed: Seed, chat_id: UUID) -> None:
    """No turn of this chat changes any more."""
    await seed.db.fetch(
        """CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'broken'; END $$"""
    )
    await seed.db.fetch(
        f"""CREATE TRIGGER broken BEFORE UPDATE ON turns FOR EACH ROW
        WHEN (NEW.chat_id = '{chat_id}') EXECUTE FUNCTION broken()"""
    )


async def test_a_chat_that_cannot_be_deleted_keeps_no_other_and_is_told(seed: Seed) -> None:
    broken, other = await seed.chat_id(), await seed.chat_id()
    await break_chat(seed, broken)
    deleting = delete_chats(seed.db, seed.actor.user_id)
    assert list((await anext(deleting)).versions) == [other]
    with pytest.raises(DBAPIError, match="broken"):
        await anext(deleting)
    rows = await seed.db.fetch("SELECT chat_id, status FROM turns ORDER BY status")
    assert [tuple(row) for row in rows] == [(other, "cancelled"), (broken, "pending")]
