"""Changing, archiving and deleting a chat."""

from uuid import uuid4

import pytest

from chatd.core.chats import ChatPatch
from chatd.core.errors import BadRequest, LeaseLost, NotFound
from chatd.store import work
from chatd.store.chats import get_chat, get_turn, list_chats, list_messages, list_turns
from chatd.store.editing import delete_chat, patch_chat
from chatd.store.stopping import INTERRUPTED
from tests.seed import Seed, change_server, make_server, make_user
from tests.store.working import (
    commit_calls,
    everything,
    finish,
    journal,
    lose,
    statuses,
    told,
)

ARCHIVE, UNARCHIVE = ChatPatch(archived=True), ChatPatch(archived=False)


async def test_a_patch_changes_what_it_names_and_one_version(seed: Seed) -> None:
    server = await make_server(seed.db)
    chat_id = await seed.chat_id()
    before = await get_chat(seed.db, seed.actor.user_id, chat_id)
    patched = await patch_chat(seed.db, seed.actor, chat_id, ChatPatch(title=" A title "))
    assert patched.versions == {chat_id: 2}
    changes = ChatPatch(labels={"team": "a"}, plan_mode="plan", mcp_server_ids=(server, server))
    assert (await patch_chat(seed.db, seed.actor, chat_id, changes)).versions == {chat_id: 3}
    after = await get_chat(seed.db, seed.actor.user_id, chat_id)
    assert {name: after[name] for name in after if after[name] != before[name]} == {
        "title": "A title",
        "labels": {"team": "a"},
        "plan_mode": "plan",
        "mcp_server_ids": [str(server)],
        "updated_at": after["updated_at"],
    }
    await patch_chat(seed.db, seed.actor, chat_id, ChatPatch(plan_mode="", mcp_server_ids=()))
    after = await get_chat(seed.db, seed.actor.user_id, chat_id)
    assert (after["plan_mode"], after["mcp_server_ids"], after["title"]) == (None, [], "A title")


@pytest.mark.parametrize(
    "patch",
    [
        ChatPatch(title="  "),
        ChatPatch(title="x" * 201),
        ChatPatch(title="fine", archived=False),
        ChatPatch(title="fine", mcp_server_ids=(uuid4(),)),
    ],
)
async def test_a_patch_that_will_not_do_changes_nothing(seed: Seed, patch: ChatPatch) -> None:
    chat_id = await seed.chat_id()
    before = await everything(seed.db)
    with pytest.raises(BadRequest):
        await patch_chat(seed.db, seed.actor, chat_id, patch)
    assert await everything(seed.db) == before


async def test_a_server_disabled_since_may_stay(seed: Seed) -> None:
    server, other = await make_server(seed.db), await make_server(seed.db, "other")
    created = await seed.chat(mcp_server_ids=(server,))
    chat_id = created.turn["chat_id"]
    await change_server(seed.db, server, enabled=False)
    await patch_chat(seed.db, seed.actor, chat_id, ChatPatch(mcp_server_ids=(server, other)))
    await change_server(seed.db, other, "other", enabled=False)
    unknown = uuid4()
    asked = ChatPatch(mcp_server_ids=(unknown, server, other))
    with pytest.raises(BadRequest) as refused:
        await patch_chat(seed.db, seed.actor, chat_id, asked)
    assert refused.value.detail == f"Invalid IDs: {unknown}"


async def test_other_peoples_chats_are_not_found(seed: Seed) -> None:
    chat_id = await seed.chat_id()
    eve = await make_user(seed.db, "eve")
    for act in (patch_chat(seed.db, eve, chat_id, ARCHIVE), delete_chat(seed.db, eve, chat_id)):
        with pytest.raises(NotFound):
            await act


# --- archiving


async def test_archiving_stops_the_running_turn_and_keeps_its_worker(seed: Seed) -> None:
    claim = await seed.claimed()
    await seed.send(claim.chat_id, "queued")
    await patch_chat(seed.db, seed.actor, claim.chat_id, ARCHIVE)
    assert await statuses(seed, claim.chat_id) == ["interrupting", "queued"]
    assert (await finish(seed, claim)).status == "interrupted"
    assert await statuses(seed, claim.chat_id) == ["interrupted", "queued"]


async def test_archiving_ends_a_waiting_turn_and_closes_what_it_left_open(seed: Seed) -> None:
    claim = await seed.claimed()
    await commit_calls(seed, claim)
    await work.mark_sent(seed.db, claim, 1, [2], 1)
    await lose(seed, claim)
    await patch_chat(seed.db, seed.actor, claim.chat_id, ARCHIVE)
    assert await statuses(seed, claim.chat_id) == ["interrupted"]
    assert await journal(seed, claim) == [(1, "cancelled"), (2, "unknown")]
    assert (await told(seed, claim.chat_id))[-2:] == [("tool", INTERRUPTED)] * 2


async def test_an_archived_chat_leaves_the_list_of_the_others(seed: Seed) -> None:
    chat_id = await seed.chat_id()
    await patch_chat(seed.db, seed.actor, chat_id, ARCHIVE)
    owner = seed.actor.user_id
    assert await list_chats(seed.db, owner, limit=9, archived=False) == []
    assert len(await list_chats(seed.db, owner, limit=9, archived=True)) == 1
    with pytest.raises(BadRequest, match="already archived"):
        await patch_chat(seed.db, seed.actor, chat_id, ARCHIVE)


async def test_unarchiving_promotes_the_head_of_the_queue(seed: Seed) -> None:
    claim = await seed.claimed("first")
    await seed.send(claim.chat_id, "second")
    await seed.send(claim.chat_id, "third")
    await patch_chat(seed.db, seed.actor, claim.chat_id, ARCHIVE)
    await finish(seed, claim)
    await patch_chat(seed.db, seed.actor, claim.chat_id, UNARCHIVE)
    assert await statuses(seed, claim.chat_id) == ["interrupted", "pending", "queued"]
    assert await told(seed, claim.chat_id) == [("user", "first"), ("user", "second")]


async def test_a_chat_unarchived_before_its_turn_has_stopped_goes_on_after_it(
    seed: Seed,
) -> None:
    claim = await seed.claimed()
    await seed.send(claim.chat_id)
    await patch_chat(seed.db, seed.actor, claim.chat_id, ARCHIVE)
    await patch_chat(seed.db, seed.actor, claim.chat_id, UNARCHIVE)
    assert await statuses(seed, claim.chat_id) == ["interrupting", "queued"]
    await finish(seed, claim)
    assert await statuses(seed, claim.chat_id) == ["interrupted", "pending"]


# --- deleting


async def test_a_deleted_chat_is_gone_for_everybody_at_once(seed: Seed) -> None:
    claim = await seed.claimed()
    await commit_calls(seed, claim)
    await seed.send(claim.chat_id)
    await delete_chat(seed.db, seed.actor, claim.chat_id)
    owner, chat_id = seed.actor.user_id, claim.chat_id
    for read in (
        get_chat(seed.db, owner, chat_id),
        list_messages(seed.db, owner, chat_id),
        list_turns(seed.db, owner, chat_id),
        get_turn(seed.db, owner, chat_id, claim.turn_id),
        patch_chat(seed.db, seed.actor, chat_id, ARCHIVE),
        delete_chat(seed.db, seed.actor, chat_id),
        seed.send(chat_id),
    ):
        with pytest.raises(NotFound):
            await read
    assert await list_chats(seed.db, owner, limit=9) == []
    rows = await seed.db.fetch("SELECT DISTINCT status, lease_id FROM turns")
    assert [tuple(row) for row in rows] == [("cancelled", None)]
    assert await journal(seed, claim) == [(1, "cancelled"), (2, "cancelled")]
    with pytest.raises(LeaseLost):
        await finish(seed, claim)
    assert await work.claim_turns(seed.db, "w", 9) == []
