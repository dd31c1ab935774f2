"""Archiving by itself: which families, and what keeps one from it."""

import asyncio
from uuid import UUID

import pytest

from chatd.core.chats import ChatPatch
from chatd.core.config import DeploymentConfig
from chatd.store.archiving import archive_stale, find_stale
from chatd.store.editing import patch_chat
from tests.seed import Seed, answer
from tests.store.working import finish
from tests.waiting import one, transaction

CONFIG = DeploymentConfig(auto_archive_days=5)


async def old_chat(seed: Seed, days: int = 10) -> UUID:
    """Its only turn is over, and everything in it happened so long ago."""
    claim = await seed.claimed()
    await finish(seed, claim, answer("done"))
    await move(seed, claim.chat_id, days)
    return claim.chat_id


async def move(seed: Seed, chat_id: UUID, days: int) -> None:
    for table, column in (("chats", "id"), ("chat_messages", "chat_id")):
        await seed.db.fetch(
            f"""UPDATE {table} SET created_at = created_at - make_interval(days => $2)
            WHERE {column} = $1""",
            chat_id,
            days,
        )
    await seed.db.fetch(
        "UPDATE chats SET updated_at = updated_at - make_interval(days => $2) WHERE id = $1",
        chat_id,
        days,
    )


async def below(seed: Seed, child: UUID, root: UUID) -> None:
    await seed.db.fetch(
        "UPDATE chats SET parent_chat_id = $2, root_chat_id = $2 WHERE id = $1", child, root
    )


async def found(seed: Seed) -> set[UUID]:
    return {root for root, _ in await find_stale(seed.db, CONFIG)}


async def archived(seed: Seed) -> set[UUID]:
    return {row["id"] for row in await seed.db.fetch("SELECT id FROM chats WHERE archived")}


async def test_an_old_family_is_archived_together_and_noted_once(seed: Seed) -> None:
    root, child = await old_chat(seed), await old_chat(seed)
    await below(seed, child, root)
    young = await old_chat(seed, days=1)
    before = await one(seed.db, "SELECT version FROM chats WHERE id = $1", root)
    assert await find_stale(seed.db, CONFIG) == [(root, seed.actor.user_id)]
    versions = await archive_stale(seed.db, root, CONFIG)
    assert versions.keys() == {root, child}
    assert versions[root] == before["version"] + 1
    assert await archived(seed) == {root, child}
    assert young not in await found(seed)
    lines = await seed.db.fetch("SELECT action, target_id, actor_id FROM audit_log")
    assert [tuple(line) for line in lines] == [("chat_auto_archive", str(root), None)]
    assert await archive_stale(seed.db, root, CONFIG) == {}


async def test_nothing_is_archived_while_it_is_off(seed: Seed) -> None:
    await old_chat(seed)
    assert await find_stale(seed.db, DeploymentConfig()) == []


@pytest.mark.parametrize("where", ["root", "child"])
async def test_what_its_user_takes_out_of_the_archive_stays_out(seed: Seed, where: str) -> None:
    root, child = await old_chat(seed), await old_chat(seed)
    await below(seed, child, root)
    chat_id = root if where == "root" else child
    await patch_chat(seed.db, seed.actor, chat_id, ChatPatch(archived=True))
    await move(seed, chat_id, 10)
    await patch_chat(seed.db, seed.actor, chat_id, ChatPatch(archived=False))
    assert await found(seed) == set()


@pytest.mark.parametrize("where", ["root", "child"])
async def test_a_new_message_anywhere_in_the_family_keeps_it(seed: Seed, where: str) -> None:
    root, child = await old_chat(seed), await old_chat(seed)
    await below(seed, child, root)
    await seed.db.fetch(
        "UPDATE chat_messages SET created_at = clock_timestamp() WHERE chat_id = $1",
        root if where == "root" else child,
    )
    assert await found(seed) == set()
    await seed.db.fetch("UPDATE chat_messages SET deleted = true")
    assert await found(seed) == {root}


async def test_a_pinned_root_and_work_in_hand_keep_a_family(seed: Seed) -> None:
    pinned, busy, child = await old_chat(seed), await old_chat(seed), await old_chat(seed)
    await seed.db.fetch("UPDATE chats SET pin_order = 1 WHERE id = $1", pinned)
    await below(seed, child, busy)
    await seed.send(child)
    await move(seed, child, 10)
    assert await found(seed) == set()


async def test_what_begins_before_the_lock_is_taken_keeps_the_family(
    seed: Seed, database_url: str
) -> None:
    root = await old_chat(seed)
    assert await found(seed) == {root}
    async with transaction(database_url) as holder:
        await holder.execute("SELECT 1 FROM chats WHERE id = $1 FOR NO KEY UPDATE", root)
        archiving = asyncio.create_task(archive_stale(seed.db, root, CONFIG))
        await holder.waiting(1)
        await holder.execute(
            "UPDATE turns SET status = 'pending', finished_at = NULL WHERE chat_id = $1", root
        )
    assert await archiving == {}
    assert await archived(seed) == set()


async def test_two_at_once_archive_once(seed: Seed) -> None:
    root = await old_chat(seed)
    results = await asyncio.gather(*(archive_stale(seed.db, root, CONFIG) for _ in range(3)))
    assert sorted(len(versions) for versions in results) == [0, 0, 1]
