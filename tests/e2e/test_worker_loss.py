"""A worker is killed in the middle of everything: its turns go on elsewhere."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

from chatd.store.db import Database
from tests.e2e.client import Client, Posted, Watch, call, spoken
from tests.e2e.fleet import Fleet, registered
from tests.e2e.gate import Gate, gate_to
from tests.e2e.journal import appended, journaled, reaches
from tests.e2e.view import View, text_of
from tests.waiting import soon

TAKEN_OVER_WITHIN_S = 15


async def test_a_killed_workers_turns_go_on_and_nothing_is_done_twice(
    crew: Fleet, db: Database, admin: Client, member: Client
) -> None:
    """Killed while a model streams, while a safe and an unsafe tool run, and between two steps."""
    doomed = await crew.worker()
    async with (
        gate_to(crew.demo_url) as gate,
        registered(admin, "ledger", gate.url) as ledger,
        AsyncExitStack() as stack,
    ):
        only = {"mcp_server_ids": [ledger["id"]]}
        once = str(uuid4())
        unsafe = await _unsafe_call_under_way(crew, gate, member, once, only)
        between = await member.create(call("demo__add", a=2, b=3), "/hang 2", "/say added")
        safe = await member.create(call("demo__slow", seconds=3), "/echo")
        streaming = await member.create("/long 100 20")
        turns = [unsafe, between, safe, streaming]
        watches = [
            await stack.enter_async_context(member.watching(posted.chat_id)) for posted in turns
        ]
        await reaches(db, safe, "sent")
        await watches[1].until(lambda view: len(view.messages) == 3)
        await watches[3].until(lambda view: view.preview.startswith("word1 word2 word3"))
        doomed.child.kill()
        gate.open()
        await crew.worker()
        for posted, watch in zip(turns, watches, strict=True):
            await watch.until(_taken_over(posted), TAKEN_OVER_WITHIN_S)
        for posted, watch in zip(turns, watches, strict=True):
            await _completed(member, posted, watch)

    assert appended(crew, once) == 1
    await _unsafe_call_was_not_repeated(db, member, unsafe)
    await _went_on_after_the_committed_step(db, member, between)
    await _safe_call_was_repeated(db, member, safe)
    await _answer_was_given_once(member, streaming)


async def _unsafe_call_under_way(
    crew: Fleet, gate: Gate, member: Client, once: str, only: dict[str, Any]
) -> Posted:
    """The server has done it, and its answer is on the way."""
    _, warmed = await member.run(call("ledger__append", text="before"), **only)
    assert not warmed[2]["content"][0]["is_error"]
    gate.shut()
    posted = await member.create(call("ledger__append", text=once), "/echo", **only)
    await soon(lambda: appended(crew, once))
    return posted


def _taken_over(posted: Posted) -> Callable[[View], bool]:
    def check(view: View) -> bool:
        return view.attempt(posted.turn_id) == 2

    return check


async def _completed(member: Client, posted: Posted, watch: Watch) -> None:
    """Who watched it all and who comes now see the same, and the chat can go on."""
    assert await watch.over(posted.turn_id) == await member.screen(posted.chat_id)
    turn = await member.turn(posted)
    assert (turn["status"], turn["attempt"], turn["error"]) == ("completed", 2, None)
    again = await member.say(posted.chat_id, "/say still here")
    assert (await member.ended(again))["status"] == "completed"


async def _unsafe_call_was_not_repeated(db: Database, member: Client, posted: Posted) -> None:
    _, _, result, answer = await member.messages(posted)
    assert result["content"][0]["is_error"]
    assert text_of(result) == text_of(answer)
    assert "not known whether this call took effect" in text_of(answer)
    (row,) = await journaled(db, posted)
    assert row["state"] == "unknown"


async def _went_on_after_the_committed_step(db: Database, member: Client, posted: Posted) -> None:
    messages = await member.messages(posted)
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert [text_of(message) for message in messages[2:]] == ["5", "added"]
    (row,) = await journaled(db, posted)
    assert (row["state"], row["attempt"]) == ("done", 1)


async def _safe_call_was_repeated(db: Database, member: Client, posted: Posted) -> None:
    _, _, result, answer = await member.messages(posted)
    assert text_of(result) == text_of(answer) == "took 3 seconds"
    (row,) = await journaled(db, posted)
    assert (row["state"], row["result"]) == ("done", "took 3 seconds")


async def _answer_was_given_once(member: Client, posted: Posted) -> None:
    user, answer = await member.messages(posted)
    assert user["role"] == "user"
    assert text_of(answer) == spoken(100)
