"""A chat with those below it, pinned chats, and what has been read."""

import asyncio
from uuid import UUID, uuid4

import pytest

from chatd.core.chats import ChatPatch
from chatd.core.errors import BadRequest, NotFound
from chatd.store import work
from chatd.store.chats import get_chat, list_chats, list_messages
from chatd.store.editing import delete_chat, mark_read, patch_chat
from tests.seed import Seed, answer, make_user
from tests.store.working import child_of, everything, finish, statuses, version_of
from tests.waiting import WITHIN_S, locked

ARCHIVE, UNARCHIVE = ChatPatch(archived=True), ChatPatch(archived=False)


async def patch(seed: Seed, chat_id: UUID, **fields: object) -> dict[UUID, int]:
    changes = ChatPatch(**fields)  # pyright: ignore[reportArgumentType]
    return (await patch_chat(seed.db, seed.actor, chat_id, changes)).versions


async def archived(seed: Seed, *chat_ids: UUID) -> list[bool]:
    return [
        (await get_chat(seed.db, seed.actor.user_id, chat_id))["archived"] for chat_id in chat_ids
    ]


# --- families


async def test_archiving_a_root_stops_the_whole_family_and_keeps_the_queues(seed: Seed) -> None:
    claim = await seed.claimed()
    child = await child_of(seed, claim.chat_id)
    await seed.send(child, "queued")
    changed = await patch_chat(seed.db, seed.actor, claim.chat_id, ARCHIVE)
    assert set(changed.versions) == {claim.chat_id, child}
    assert changed.stops == [claim.turn_id]
    assert await archived(seed, claim.chat_id, child) == [True, True]
    assert await statuses(seed, child) == ["interrupted", "queued"]
    changed = await patch_chat(seed.db, seed.actor, claim.chat_id, UNARCHIVE)
    assert set(changed.versions) == {claim.chat_id, child}
    assert changed.versions[child] == await version_of(seed, child)
    assert await archived(seed, claim.chat_id, child) == [False, False]
    assert await statuses(seed, child) == ["interrupted", "pending"]


async def test_a_child_is_archived_alone_and_not_unarchived_below_an_archived_one(
    seed: Seed,
) -> None:
    root = await seed.chat_id()
    child = await child_of(seed, root)
    await patch(seed, child, archived=True)
    assert await archived(seed, root, child) == [False, True]
    assert set(await patch(seed, root, archived=True)) == {root}
    before = await everything(seed.db)
    with pytest.raises(BadRequest, match="parent chat is archived"):
        await patch(seed, child, archived=False)
    assert await everything(seed.db) == before
    await patch(seed, root, archived=False)
    assert await archived(seed, root, child) == [False, False]


async def test_deleting_a_root_deletes_those_below(seed: Seed) -> None:
    claim = await seed.claimed()
    child = await child_of(seed, claim.chat_id)
    changed = await delete_chat(seed.db, seed.actor, claim.chat_id)
    assert changed.stops == [claim.turn_id]
    assert set(changed.versions) == {claim.chat_id, child}
    for chat_id in (claim.chat_id, child):
        with pytest.raises(NotFound):
            await get_chat(seed.db, seed.actor.user_id, chat_id)
    assert await work.claim_turns(seed.db, "w", 9) == []


async def test_deleting_a_child_leaves_its_root(seed: Seed) -> None:
    root = await seed.chat_id()
    child = await child_of(seed, root)
    assert set((await delete_chat(seed.db, seed.actor, child)).versions) == {child}
    assert await statuses(seed, root) == ["pending"]


async def test_roots_are_listed_with_the_children_that_are_archived_like_them(seed: Seed) -> None:
    root, other = await seed.chat_id("root"), await seed.chat_id("other")
    kept, put_away = await child_of(seed, root, "kept"), await child_of(seed, root, "put away")
    await patch(seed, put_away, archived=True)

    async def listed(archived: bool | None) -> dict[str, list[str]]:
        found = await list_chats(seed.db, seed.actor.user_id, limit=9, archived=archived)
        return {chat["title"]: [child["title"] for child in chat["children"]] for chat in found}

    assert await listed(False) == {"other": [], "root": ["kept"]}
    assert await listed(None) == {"other": [], "root": ["kept", "put away"]}
    alone = await get_chat(seed.db, seed.actor.user_id, root)
    assert [child["title"] for child in alone["children"]] == ["kept", "put away"]
    await patch(seed, root, archived=True)
    assert await listed(True) == {"root": ["kept", "put away"]}
    assert await archived(seed, kept, other) == [True, False]


# --- titles


async def test_a_title_given_by_its_user_is_known_as_theirs(seed: Seed) -> None:
    chat_id = await seed.chat_id()
    sources = "SELECT title_source FROM chats"
    await patch(seed, chat_id, labels={"a": "b"})
    assert (await seed.db.fetch(sources))[0][0] == "fallback"
    assert await patch(seed, chat_id, title="Mine") == {chat_id: 3}
    assert (await seed.db.fetch(sources))[0][0] == "user"


# --- pins


async def pins(seed: Seed) -> list[str]:
    """Titles of the pinned chats; their numbers have no gaps."""
    rows = await seed.db.fetch(
        "SELECT title, pin_order FROM chats WHERE pin_order > 0 ORDER BY pin_order"
    )
    assert [row["pin_order"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["title"] for row in rows]


async def pinned(seed: Seed, *titles: str) -> list[UUID]:
    made = [await seed.chat_id(title) for title in titles]
    for chat_id in made:
        await patch(seed, chat_id, pin_order=7)
    assert await pins(seed) == list(titles)
    return made


async def test_a_pinned_chat_moves_and_the_others_make_room(seed: Seed) -> None:
    a, b, c = await pinned(seed, "a", "b", "c")
    assert set(await patch(seed, c, pin_order=1)) == {a, b, c}
    assert await pins(seed) == ["c", "a", "b"]
    assert set(await patch(seed, a, pin_order=99)) == {a, b}
    assert await pins(seed) == ["c", "b", "a"]
    assert set(await patch(seed, b, pin_order=2)) == {b}
    assert set(await patch(seed, c, pin_order=0)) == {a, b, c}
    assert await pins(seed) == ["b", "a"]
    assert set(await patch(seed, c, pin_order=0)) == {c}
    assert (await get_chat(seed.db, seed.actor.user_id, a))["pin_order"] == 2


async def test_every_chat_that_moves_has_its_next_version(seed: Seed) -> None:
    a, b = await pinned(seed, "a", "b")
    before = await version_of(seed, a)
    versions = await patch(seed, b, pin_order=1)
    assert versions[a] == before + 1 == await version_of(seed, a)
    assert versions[b] == await version_of(seed, b)


async def test_what_is_archived_or_deleted_is_not_pinned(seed: Seed) -> None:
    a, b, _ = await pinned(seed, "a", "b", "c")
    await patch(seed, a, archived=True)
    assert await pins(seed) == ["b", "c"]
    await delete_chat(seed.db, seed.actor, b)
    rows = await seed.db.fetch(
        "SELECT title, pin_order FROM chats WHERE pin_order > 0 AND deleted_at IS NULL"
    )
    assert [tuple(row) for row in rows] == [("c", 1)]
    await patch(seed, a, archived=False, pin_order=1)
    assert await pins(seed) == ["c", "a"]


async def test_pins_of_others_are_their_own(seed: Seed) -> None:
    await pinned(seed, "a")
    eve = Seed(seed.db, await make_user(seed.db, "eve"), seed.model_id)
    theirs = await eve.chat_id("theirs")
    assert await patch(eve, theirs, pin_order=1) == {theirs: 2}
    assert (await get_chat(eve.db, eve.actor.user_id, theirs))["pin_order"] == 1


async def test_a_pin_that_will_not_do_changes_nothing(seed: Seed) -> None:
    root, away = await seed.chat_id(), await seed.chat_id()
    child = await child_of(seed, root)
    await patch(seed, away, archived=True)
    before = await everything(seed.db)
    for chat_id, fields, message in (
        (root, {"pin_order": -1}, "must not be negative"),
        (away, {"pin_order": 1}, "archived chat cannot be pinned"),
        (root, {"pin_order": 1, "archived": True}, "archived chat cannot be pinned"),
        (child, {"pin_order": 1}, "Only root chats"),
    ):
        with pytest.raises(BadRequest, match=message):
            await patch(seed, chat_id, title="new", **fields)
    assert await everything(seed.db) == before


async def test_unpinning_a_child_waits_for_no_pinned_chat_not_even_its_root(
    seed: Seed, database_url: str
) -> None:
    """Whoever stops the family holds the root and waits for the child: it would be a deadlock."""
    (root,) = await pinned(seed, "root")
    child = await child_of(seed, root)
    async with locked(database_url, root), asyncio.timeout(WITHIN_S):
        assert set(await patch(seed, child, pin_order=0)) == {child}


async def test_pins_moved_at_once_stay_without_gaps(seed: Seed) -> None:
    chats = await pinned(seed, "a", "b", "c", "d")
    await asyncio.gather(
        *(patch(seed, chat_id, pin_order=1) for chat_id in chats),
        *(patch(seed, chat_id, archived=True) for chat_id in chats[:2]),
    )
    assert len(await pins(seed)) <= 4


# --- reading


async def unread(seed: Seed, chat_id: UUID) -> bool:
    return (await get_chat(seed.db, seed.actor.user_id, chat_id))["has_unread"]


async def test_what_was_read_is_not_unread_and_never_becomes_it_again(seed: Seed) -> None:
    claim = await seed.claimed()
    await finish(seed, claim, answer("one"), answer("two", 2))
    chat_id, actor = claim.chat_id, seed.actor
    found = await list_messages(seed.db, actor.user_id, chat_id)
    newest, earlier, _ = [message["id"] for message in found["messages"]]
    version = await version_of(seed, chat_id)
    assert await unread(seed, chat_id)
    assert await mark_read(seed.db, actor, chat_id, earlier)
    assert await unread(seed, chat_id)
    assert await mark_read(seed.db, actor, chat_id, None)
    assert not await unread(seed, chat_id)
    assert not await mark_read(seed.db, actor, chat_id, earlier)
    assert not await mark_read(seed.db, actor, chat_id, newest + 1000)
    assert not await unread(seed, chat_id)
    assert await version_of(seed, chat_id) == version
    await seed.send(chat_id)
    await finish(seed, await seed.claim(), answer("three"))
    assert await unread(seed, chat_id)


async def test_other_peoples_chats_are_not_marked_as_read(seed: Seed) -> None:
    claim = await seed.claimed()
    await finish(seed, claim, answer("one"))
    eve = await make_user(seed.db, "eve")
    for actor, chat_id in ((eve, claim.chat_id), (seed.actor, uuid4())):
        with pytest.raises(NotFound):
            await mark_read(seed.db, actor, chat_id, None)
    assert await unread(seed, claim.chat_id)
