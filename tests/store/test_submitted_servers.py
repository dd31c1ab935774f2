"""The MCP servers and settings a message comes with."""

from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest

from chatd.core.chats import ChatPatch
from chatd.core.errors import BadRequest
from chatd.store.chats import get_chat
from chatd.store.editing import patch_chat
from tests.seed import Seed, change_server, make_group, make_server
from tests.store.working import everything


async def test_unknown_servers_are_named_and_nothing_written(seed: Seed) -> None:
    known, off = await make_server(seed.db, "a"), await make_server(seed.db, "b", enabled=False)
    chat_id = await seed.chat_id()
    before, unknown = await everything(seed.db), uuid4()
    for send in (seed.chat, partial(seed.send, chat_id)):
        with pytest.raises(BadRequest) as refused:
            await send(mcp_server_ids=(known, unknown, off))
        assert refused.value.detail == f"Invalid IDs: {unknown}, {off}"
        assert refused.value.validations[0]["field"] == "mcp_server_ids"
    assert await everything(seed.db) == before


async def test_null_keeps_the_servers_and_an_empty_list_takes_them_away(seed: Seed) -> None:
    first, second = await make_server(seed.db, "a"), await make_server(seed.db, "b")
    created = await seed.chat(mcp_server_ids=(second, first, second))
    assert created.turn["mcp_server_ids"] == [str(second), str(first)]
    chat_id = UUID(created.turn["chat_id"])
    assert (await seed.send(chat_id)).turn["mcp_server_ids"] == [str(second), str(first)]
    assert (await seed.send(chat_id, mcp_server_ids=())).turn["mcp_server_ids"] == []
    assert (await seed.send(chat_id)).turn["mcp_server_ids"] == []
    repeated = await seed.send(chat_id, mcp_server_ids=(first, first))
    assert repeated.turn["mcp_server_ids"] == [str(first)]


async def test_a_new_chat_without_a_word_on_servers_gets_the_default_ones(seed: Seed) -> None:
    wanted = await make_server(seed.db, "b", availability="default_on")
    await make_server(seed.db, "a", availability="default_on", enabled=False)
    await make_server(seed.db, "c", availability="default_on", access="groups")
    assert (await seed.chat()).turn["mcp_server_ids"] == [str(wanted)]
    assert (await seed.chat(mcp_server_ids=())).turn["mcp_server_ids"] == []


async def test_a_forced_server_is_stored_with_whatever_is_chosen(seed: Seed) -> None:
    group = await make_group(seed.db, "support", seed.actor.user_id)
    chosen = await make_server(seed.db, "z", availability="default_on")
    forced = await make_server(seed.db, "c", availability="force_on")
    ours = await make_server(
        seed.db, "b", availability="force_on", access="groups", group_ids=(group,)
    )
    await make_server(seed.db, "a", availability="force_on", access="groups")
    await make_server(seed.db, "d", availability="force_on", enabled=False)
    choices: dict[tuple[UUID, ...] | None, list[UUID]] = {
        None: [chosen, ours, forced],
        (): [ours, forced],
        (chosen,): [chosen, ours, forced],
        (forced, chosen): [forced, chosen, ours],
    }
    chat_id = await seed.chat_id()
    for choice, stored in choices.items():
        ids = [str(server_id) for server_id in stored]
        assert (await seed.chat(mcp_server_ids=choice)).turn["mcp_server_ids"] == ids
        sent = await seed.send(chat_id, mcp_server_ids=choice)
        assert sent.turn["mcp_server_ids"] == ids
        assert (await get_chat(seed.db, seed.actor.user_id, chat_id))["mcp_server_ids"] == ids


async def test_a_message_that_says_nothing_of_servers_stores_none_either(seed: Seed) -> None:
    chat_id = await seed.chat_id()
    await make_server(seed.db, "forced", availability="force_on")
    assert (await seed.send(chat_id)).turn["mcp_server_ids"] == []


async def test_a_sub_agent_that_explores_keeps_its_servers(seed: Seed) -> None:
    chosen = await make_server(seed.db, "a")
    chat_id = UUID((await seed.chat(mcp_server_ids=(chosen,))).turn["chat_id"])
    await seed.db.fetch("UPDATE chats SET mode = 'explore'")
    await make_server(seed.db, "forced", availability="force_on")
    sent = await seed.send(chat_id, mcp_server_ids=(chosen,))
    assert sent.turn["mcp_server_ids"] == [str(chosen)]


async def test_a_server_for_others_is_unknown_unless_the_chat_has_it(seed: Seed) -> None:
    group = await make_group(seed.db, "support", seed.actor.user_id)
    restricted: dict[str, Any] = {"access": "groups", "group_ids": (group,)}
    server = await make_server(seed.db, **restricted)
    chat_id = UUID((await seed.chat(mcp_server_ids=(server,))).turn["chat_id"])
    other_id = await seed.chat_id()
    await seed.db.fetch("DELETE FROM group_members")
    before = await everything(seed.db)
    patch = ChatPatch(mcp_server_ids=(server,))
    for use in (
        partial(seed.chat, mcp_server_ids=(server,)),
        partial(seed.send, other_id, mcp_server_ids=(server,)),
        partial(patch_chat, seed.db, seed.actor, other_id, patch),
    ):
        with pytest.raises(BadRequest) as refused:
            await use()
        assert refused.value.detail == f"Invalid IDs: {server}"
    assert await everything(seed.db) == before
    kept = await seed.send(chat_id, mcp_server_ids=(server,))
    assert kept.turn["mcp_server_ids"] == [str(server)]
    await patch_chat(seed.db, seed.actor, chat_id, patch)


async def test_a_server_disabled_since_may_stay_in_its_chat(seed: Seed) -> None:
    server = await make_server(seed.db)
    chat_id = UUID((await seed.chat(mcp_server_ids=(server,))).turn["chat_id"])
    await change_server(seed.db, server, enabled=False)
    assert (await seed.send(chat_id, mcp_server_ids=(server,))).turn["mcp_server_ids"]
    with pytest.raises(BadRequest):
        await seed.chat(mcp_server_ids=(server,))


async def test_settings_typed_with_a_message_become_the_chats(seed: Seed) -> None:
    chat_id = UUID((await seed.chat(plan_mode="plan")).turn["chat_id"])
    sent = await seed.send(chat_id, reasoning_effort="high")
    assert (sent.turn["plan_mode"], sent.turn["reasoning_effort"]) == ("plan", "high")
    sent = await seed.send(chat_id, plan_mode="")
    assert (sent.turn["plan_mode"], sent.turn["reasoning_effort"]) == (None, "high")
    read = await get_chat(seed.db, seed.actor.user_id, chat_id)
    assert (read["plan_mode"], read["last_reasoning_effort"]) == (None, "high")


async def test_submitting_is_not_planned_anew_for_each_user(seed: Seed) -> None:
    """PostgreSQL tries five plans of their own before it settles on one for all values."""
    for number, availability in enumerate(("force_on", "default_on", "default_off")):
        await make_server(seed.db, f"s{number}", availability=availability)
    chat_id = await seed.chat_id()
    for _ in range(8):
        await seed.chat()
        await seed.send(chat_id)
    plans = await seed.db.fetch(
        """SELECT custom_plans, generic_plans FROM pg_prepared_statements
        WHERE statement LIKE $1""",
        "%usable AS MATERIALIZED%",
    )
    assert sorted(tuple(row) for row in plans) == [(5, 3), (5, 4)]
