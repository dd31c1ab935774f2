"""The MCP servers and settings a message comes with."""

from functools import partial
from uuid import UUID, uuid4

import pytest

from chatd.core.errors import BadRequest
from chatd.store.chats import get_chat
from tests.seed import Seed, change_server, make_server
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
    await make_server(seed.db, "c", availability="force_on")  # added by policy, not stored
    assert (await seed.chat()).turn["mcp_server_ids"] == [str(wanted)]
    assert (await seed.chat(mcp_server_ids=())).turn["mcp_server_ids"] == []


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
