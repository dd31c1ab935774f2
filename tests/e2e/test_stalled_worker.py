"""A worker that stands still past its lease and then wakes up: none of its writes lands."""

import signal

from chatd.store.db import Database
from tests.e2e.client import Client, Posted, call, spoken
from tests.e2e.fleet import Fleet
from tests.e2e.journal import journaled, reaches
from tests.e2e.view import text_of

CHAT = """
SELECT c.version, (SELECT json_agg(m ORDER BY m.id) FROM chat_messages m WHERE m.chat_id = c.id),
    (SELECT json_agg(t) FROM turns t WHERE t.chat_id = c.id),
    (SELECT json_agg(j) FROM tool_calls j WHERE j.chat_id = c.id)
FROM chats c WHERE c.id = $1
"""


async def test_a_worker_that_wakes_after_its_turns_ended_elsewhere_changes_nothing(
    crew: Fleet, db: Database, member: Client
) -> None:
    """Its model calls and its tool call come to their end, and nobody hears of it."""
    stalled = await crew.worker()
    streaming = await member.create("/long 60 20")
    calling = await member.create(call("demo__slow", seconds=1), "/long 20 20")
    async with (
        member.watching(streaming.chat_id) as first,
        member.watching(calling.chat_id) as second,
    ):
        await first.until(lambda view: view.preview.startswith("word1 word2 "))
        await reaches(db, calling, "sent")
        stalled.child.send_signal(signal.SIGSTOP)
        await crew.worker()
        screens = [await first.over(streaming.turn_id), await second.over(calling.turn_id)]
        kept = [await _everything(db, posted) for posted in (streaming, calling)]

        stalled.child.send_signal(signal.SIGCONT)
        for posted in (streaming, calling):
            await stalled.says("turn ended", status="lost", turn=posted.turn_id)
        assert [await _everything(db, posted) for posted in (streaming, calling)] == kept
        assert [first.view.snapshot(), second.view.snapshot()] == screens
        assert first.view.attempt(streaming.turn_id) == 2
    (row,) = await journaled(db, calling)
    assert (row["state"], row["result"]) == ("done", "took 1 seconds")


async def test_a_worker_that_wakes_while_its_turn_runs_elsewhere_does_not_disturb_it(
    crew: Fleet, member: Client
) -> None:
    """Two workers have the same turn in hand, and both models talk."""
    stalled = await crew.worker()
    posted = await member.create("/long 200 20")
    async with member.watching(posted.chat_id) as watch:
        await watch.until(lambda view: view.preview.startswith("word1 word2 "))
        stalled.child.send_signal(signal.SIGSTOP)
        await crew.worker()
        await watch.until(lambda view: view.attempt(posted.turn_id) == 2 and len(view.preview) > 20)
        stalled.child.send_signal(signal.SIGCONT)
        await stalled.says("turn ended", status="lost", turn=posted.turn_id)
        assert await watch.over(posted.turn_id) == await member.screen(posted.chat_id)
    _, answer = await member.messages(posted)
    assert text_of(answer) == spoken(200)


async def _everything(db: Database, posted: Posted) -> str:
    """Every column of everything a worker writes."""
    row = await db.fetch_one(CHAT, posted.chat_id)
    assert row is not None
    return repr(tuple(row))
