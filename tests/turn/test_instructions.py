"""The instructions a model call really has."""

import orjson

from chatd.core.chats import NewChat, NewTurn
from chatd.store.config import write_personal, write_setting
from chatd.store.ids import new_id
from chatd.store.submitting import create_chat
from chatd.turn.deps import Control
from chatd.turn.run import run_turn
from tests.seed import said
from tests.turn.bench import Bench


async def test_all_who_may_instruct_do_so_in_order(bench: Bench) -> None:
    seed = bench.seed
    async with seed.db.transaction() as session:
        value = {"text": "ADMIN", "include_default": True}
        await write_setting(session, "system_prompt", value, seed.actor.user_id)
    await write_personal(seed.db, seed.actor.user_id, "prompt", {"text": "USER"})
    new = NewChat(NewTurn(said("/messages")), system_prompt="CHAT")
    await create_chat(seed.db, seed.actor, new, None, chat_id=new_id(), turn_id=new_id())
    claim = await seed.claim()
    assert await run_turn(bench.deps, claim, Control()) == "completed"
    (told,) = await bench.told(claim)
    system, user = orjson.loads(told)
    assert (system["role"], user["role"]) == ("system", "user")
    places = [
        system["content"].index(words)
        for words in ("You are", "ADMIN", "<user-instructions>\nUSER", "CHAT", 'server="demo"')
    ]
    assert places == sorted(places)
    assert system["content"].rstrip().endswith("</mcp-server-instructions>")


async def test_a_long_script_goes_on_behind_a_summary(bench: Bench) -> None:
    await bench.seed.db.fetch(
        "UPDATE model_configs SET context_limit = 20000, compression_threshold = 0"
    )
    lines = [f'/call demo__add {{"a": {n}, "b": 1}}' for n in range(3)]
    claim = await bench.run(*lines, "/say counted")
    assert (await bench.turn(claim))["status"] == "completed"
    told = await bench.told(claim)
    assert told[-1] == "counted"
    assert [line for line in told if line.startswith("demo__add")] == [
        line.removeprefix("/call ").replace(" {", "({", 1) + ")" for line in lines
    ]
    assert sum(line.startswith("chat_summarized") for line in told) == 1
