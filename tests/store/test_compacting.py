"""A summary is written whole, once, and only by the turn's owner."""

import pytest

from chatd.core.errors import LeaseLost
from chatd.core.messages import NO_USAGE, NewMessage
from chatd.core.work import Claim, Committed
from chatd.store import work
from chatd.store.compacting import CompactionRow, commit_compaction
from chatd.store.db import Database
from tests.relay import relay_to
from tests.seed import Seed, answer, said
from tests.store.working import NOTICE, commit_calls, everything, lose, told
from tests.waiting import one


def rows() -> list[CompactionRow]:
    usage = NO_USAGE.copy()
    usage["input_tokens"] = 7
    return [
        CompactionRow(NewMessage("user", said("summary"), 2, -4), "model"),
        CompactionRow(NewMessage("assistant", said("shown"), 2, -3, usage=usage), "user"),
        CompactionRow(NewMessage("tool", said("shown too"), 2, -2), "user"),
        CompactionRow(NewMessage("user", said("hello"), 2, -1), "model", compressed=False),
    ]


async def compact(db: Database, claim: Claim) -> Committed:
    return await commit_compaction(db, claim, rows(), [NOTICE])


@pytest.mark.parametrize("owner", ["another worker", "nobody", "a command"])
async def test_without_the_lease_no_summary_is_written(seed: Seed, owner: str) -> None:
    claim = await seed.claimed()
    if owner == "a command":
        await seed.db.fetch("UPDATE turns SET status = 'cancelled', lease_id = NULL")
    else:
        await lose(seed, claim)
    if owner == "another worker":
        await seed.claim()
    before = await everything(seed.db)
    with pytest.raises(LeaseLost):
        await compact(seed.db, claim)
    assert await everything(seed.db) == before


async def test_the_model_reads_on_from_the_summary(seed: Seed) -> None:
    claim = await seed.claimed()
    await work.commit_step(seed.db, claim, [answer("long ago")], [], [], None)
    committed = await compact(seed.db, claim)
    chat = await one(seed.db, "SELECT context_from_message_id, version FROM chats")
    ids = [row[0] for row in committed.messages]
    assert ids == sorted(ids)
    assert chat["context_from_message_id"] == ids[0]
    assert chat["version"] == committed.version
    stamped = await seed.db.fetch("SELECT version FROM chat_messages WHERE step = 2")
    assert {row["version"] for row in stamped} == {committed.version}
    turn = await one(seed.db, "SELECT commits, version FROM turns")
    assert (turn["commits"], turn["version"]) == (2, committed.version)
    assert await told(seed, claim.chat_id) == [
        ("user", "hello"),
        ("assistant", "long ago"),
        ("assistant", "shown"),
        ("tool", "shown too"),
    ]


async def test_a_summary_whose_commit_had_no_answer_is_written_once(
    seed: Seed, database_url: str
) -> None:
    claim, other = await seed.claimed(), await seed.claimed()
    async with relay_to(database_url) as (relay, url):
        db = Database(url, pool_size=1)
        await compact(db, other)
        relay.lose_next_answer()
        committed = await compact(db, claim)
        await db.close()
    assert len(committed.messages) == 4
    spent = await seed.db.fetch(
        "SELECT kind, input_tokens FROM usage_entries WHERE chat_id = $1", claim.chat_id
    )
    assert [(row["kind"], row["input_tokens"]) for row in spent] == [("compaction", 7)]


async def test_a_summary_is_progress(seed: Seed) -> None:
    claim = await seed.claimed()
    await commit_calls(seed, claim)
    await lose(seed, claim)
    again = await seed.claim()
    await compact(seed.db, again)
    assert (await one(seed.db, "SELECT lost FROM turns"))["lost"] == 0
