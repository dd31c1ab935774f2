"""Removing what is over."""

from chatd.core.chats import Once
from chatd.store import purging, work
from chatd.store.editing import delete_chat
from tests.seed import Seed
from tests.store.working import commit_calls, outcome
from tests.waiting import one


async def count(seed: Seed, table: str) -> int:
    return (await one(seed.db, f"SELECT count(*) FROM {table}"))[0]


async def test_a_deleted_chats_rows_go_and_its_journal_keeps_no_words(seed: Seed) -> None:
    kept, gone = await seed.claimed(), await seed.claimed()
    for claim in (kept, gone):
        await commit_calls(seed, claim)
        await work.mark_sent(seed.db, claim, 1, [1], 1)
        await work.record_result(seed.db, claim, outcome(1))
    await delete_chat(seed.db, seed.actor, gone.chat_id)
    assert await purging.purge_chats(seed.db) == 1
    assert [await count(seed, table) for table in ("chats", "turns", "chat_messages")] == [1, 1, 2]
    lines = await seed.db.fetch(
        "SELECT tool_name, state, user_id, arguments, result FROM tool_calls"
        " WHERE turn_id = $1 ORDER BY position",
        gone.turn_id,
    )
    owner = seed.actor.user_id
    assert [tuple(line) for line in lines] == [
        ("demo__add", "done", owner, None, None),
        ("demo__add", "cancelled", owner, None, None),
    ]
    untouched = await one(
        seed.db, "SELECT count(arguments) FROM tool_calls WHERE turn_id = $1", kept.turn_id
    )
    assert untouched[0] == 2
    assert await purging.purge_chats(seed.db) == 0


async def test_only_keys_past_their_day_are_forgotten(seed: Seed) -> None:
    old, new = (Once("/chats", key, b"x" * 32) for key in ("old", "new"))
    first = await seed.chat("a", old)
    await seed.db.fetch("UPDATE turns SET queued_at = queued_at - interval '24 hours'")
    await seed.chat("b", new)
    assert await purging.forget_keys(seed.db) == 1
    assert await purging.forget_keys(seed.db) == 0
    assert (await seed.chat("a", old)).turn["id"] != first.turn["id"]
    assert (await seed.chat("b", new)).version == 0
