"""A history that fills the window is summed up, and the turn goes on from the summary."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import pytest
from redis.asyncio import Redis

from chatd.core.chats import NewTurn
from chatd.core.work import Claim
from chatd.dev.served import Served
from chatd.llm.compaction import INSTRUCTION, MAX_SHORTENINGS
from chatd.store.config import write_personal
from chatd.store.db import Database
from chatd.store.history import Rewrite, rewrite
from chatd.store.ids import new_id
from chatd.store.submitting import submit_turn
from chatd.turn.deps import Control
from chatd.turn.run import run_turn
from tests.llm.provider import STOP, events, streaming, text
from tests.outbound.raw_server import Answer
from tests.seed import Seed, make_seed, make_server, said
from tests.spent import ledger
from tests.store.working import lose
from tests.stream.listening import data, listening
from tests.turn.bench import Bench
from tests.turn.replies import REFUSED, TOO_LONG, Replies, calls, replying, says, silent
from tests.turning import turn_deps
from tests.waiting import one, until

LIMIT = 1000
FULL = 700
"""At the default threshold of 70 percent."""

SUMMARY = "They greeted each other."


@dataclass
class Talk:
    """A chat on a model whose answers the test gives."""

    bench: Bench
    replies: Replies

    @property
    def seed(self) -> Seed:
        return self.bench.seed

    async def begin(self, entered: int = FULL) -> Claim:
        """A chat with one turn behind it, which has filled so much of the window."""
        return await self.turn(await self.seed.claimed("hello"), says("good day", entered))

    async def turn(self, claim: Claim, *answers: Answer) -> Claim:
        self.replies.queue += answers
        await run_turn(self.bench.deps, claim, Control())
        assert self.replies.queue == []
        return claim

    async def send(self, claim: Claim, words: str, *answers: Answer) -> Claim:
        await self.seed.send(claim.chat_id, words)
        return await self.turn(await self.seed.claim(), *answers)

    async def compact(self, claim: Claim, *answers: Answer) -> Claim:
        seed = self.seed
        new = NewTurn([], kind="compact")
        await submit_turn(seed.db, seed.actor, claim.chat_id, new, None, turn_id=new_id())
        return await self.turn(await seed.claim(), *answers)

    async def edit(self, claim: Claim, message_id: int, words: str, *answers: Answer) -> Claim:
        new = NewTurn(said(words))
        seed = self.seed
        asked = Rewrite(seed.actor, claim.chat_id, message_id, new, None, new_id(), None)
        await rewrite(seed.db, asked)
        return await self.turn(await seed.claim(), *answers)

    async def status(self, claim: Claim) -> tuple[str, str | None, list[str]]:
        """How the turn ended, why, and its notices."""
        turn = await self.bench.turn(claim)
        error = turn["error"]["kind"] if turn["error"] else None
        return turn["status"], error, [notice["code"] for notice in turn["notices"]]

    async def spent(self, chat_id: UUID) -> list[str]:
        rows = await self.seed.db.fetch(
            "SELECT kind FROM usage_entries WHERE chat_id = $1 ORDER BY id", chat_id
        )
        return [row["kind"] for row in rows]


@pytest.fixture
async def talk(db: Database, redis: Redis, demo_server: Served) -> AsyncGenerator[Talk]:
    async with replying() as replies, turn_deps(db, redis) as deps:
        seed = await make_seed(db, replies.url)
        await db.fetch("UPDATE model_configs SET context_limit = $1", LIMIT)
        server_id = await make_server(
            db, url=demo_server.url, availability="default_on", trust_annotations=True
        )
        yield Talk(Bench(seed, deps, redis, server_id), replies)


def summed_up(said: list[tuple[str, str]]) -> None:
    """The first message is the summary's, and nothing older is left."""
    role, words = said[0]
    assert role == "user"
    assert SUMMARY in words
    assert not any("good day" in words for _, words in said)


# --- what goes wrong


async def test_a_compaction_that_fails_costs_the_turn_only_a_notice(talk: Talk) -> None:
    first = await talk.begin()
    claim = await talk.send(first, "more", says(""), says("well", FULL))
    assert await talk.status(claim) == ("completed", None, ["compaction_failed"])
    assert [words for _, words in talk.replies.said(2)] == ["hello", "good day", "more"]
    assert await talk.spent(claim.chat_id) == ["step", "step", "lost"]
    assert await compressed(talk) == 0


async def test_a_failed_compaction_is_not_tried_again_at_every_step(talk: Talk) -> None:
    first = await talk.begin()
    answers = [REFUSED, calls("add", FULL + 10, a=1, b=2), says("three", FULL + 20)]
    claim = await talk.send(first, "more", *answers)
    assert await talk.status(claim) == ("completed", None, ["compaction_failed"])


async def test_a_turn_whose_summary_does_not_help_fails_instead_of_looping(talk: Talk) -> None:
    first = await talk.begin()
    claim = await talk.send(first, "more", says(SUMMARY), says("too late", LIMIT))
    assert await talk.status(claim) == ("failed", "config", [])
    error = (await talk.bench.turn(claim))["error"]
    assert error["message"].startswith("The conversation fills the model's context window")
    assert await talk.spent(claim.chat_id) == ["step", "compaction", "lost"]


async def test_what_a_summary_did_not_make_smaller_is_not_summed_up_at_once_again(
    talk: Talk,
) -> None:
    first = await talk.begin()
    steps = [calls("add", 800, a=1, b=2), calls("add", 850, a=2, b=2), says("four", 890)]
    claim = await talk.send(first, "more", says(SUMMARY), *steps)
    assert await talk.status(claim) == ("completed", None, [])
    again = await talk.send(claim, "and more", says("nothing new", 905))
    assert await talk.status(again) == ("completed", None, [])
    await talk.send(again, "so much more", says("They counted."), says("yes"))
    assert "They counted." in talk.replies.said(-1)[0][1]


async def test_a_conversation_the_provider_refuses_is_summed_up_and_sent_again(talk: Talk) -> None:
    first = await talk.begin(entered=100)
    claim = await talk.send(first, "x" * 3000, TOO_LONG, says(SUMMARY), says("well"))
    assert await talk.status(claim) == ("completed", None, [])
    summed_up(talk.replies.said(-1))
    assert talk.replies.said(-1)[1] == ("user", "x" * 3000)
    assert (await talk.bench.told(first))[-1] == "well"


async def test_a_turn_is_summed_up_for_its_length_only_once(talk: Talk) -> None:
    first = await talk.begin(entered=100)
    claim = await talk.send(first, "more", TOO_LONG, says(SUMMARY), TOO_LONG)
    assert await talk.status(claim) == ("failed", "config", [])
    error = (await talk.bench.turn(claim))["error"]
    assert error["message"] == "The conversation is too long for this model."


async def test_a_first_message_that_is_too_long_is_no_conversation_to_sum_up(talk: Talk) -> None:
    claim = await talk.turn(await talk.seed.claimed("hello"), TOO_LONG)
    assert await talk.status(claim) == ("failed", "config", [])


async def test_a_summary_that_is_refused_is_asked_for_with_less_and_less(talk: Talk) -> None:
    claim = await talk.begin(entered=100)
    for turn in range(4):
        claim = await talk.send(claim, f"question {turn} " + "q" * 500, says(f"answer {turn}"))
    refused = len(talk.replies.asked)
    claim = await talk.send(claim, "more", TOO_LONG, TOO_LONG, says(SUMMARY), says("well"))
    assert await talk.status(claim) == ("completed", None, [])
    sizes = [len(orjson.dumps(request["messages"])) for request in talk.replies.asked[refused:]]
    assert sizes[1:] == sorted(sizes[1:], reverse=True)
    summing = talk.replies.said(-2)
    assert summing[0][1].startswith("[The oldest part")
    assert ("assistant", "answer 3") in summing
    assert summing[-1] == ("user", INSTRUCTION)


async def test_a_summary_that_never_fits_leaves_the_first_refusal_standing(talk: Talk) -> None:
    first = await talk.begin(entered=100)
    answers = [TOO_LONG] * (MAX_SHORTENINGS + 2)
    claim = await talk.send(first, "more", *answers)
    assert await talk.status(claim) == ("failed", "config", ["compaction_failed"])
    assert await compressed(talk) == 0


async def test_a_worker_lost_right_after_the_compaction_is_followed_from_the_summary(
    talk: Talk,
) -> None:
    claim = await talk.seed.claimed("count")
    talk.replies.queue += [calls("add", FULL, a=1, b=2), says(SUMMARY), silent]
    control = Control()
    running = talk.bench.start(claim)
    await until(lambda: _asked(talk, 3))
    running.control.stop = "lost"
    running.task.cancel()
    assert await running.task == "lost"
    await lose(talk.seed, claim)
    talk.replies.queue += [calls("add", 200, a=5, b=5), says("ten", 210)]
    again = await talk.seed.claim()
    assert await run_turn(talk.bench.deps, again, control) == "completed"
    summed_up(talk.replies.said(3))
    rows = await talk.seed.db.fetch(
        "SELECT step, role FROM chat_messages WHERE turn_id = $1 AND NOT compressed ORDER BY id",
        claim.turn_id,
    )
    assert [(row["step"], row["role"]) for row in rows] == [
        (0, "user"),
        (1, "assistant"),
        (1, "tool"),
        (2, "user"),
        (2, "assistant"),
        (2, "tool"),
        (3, "assistant"),
    ]
    await talk.bench.complete(again)


async def _asked(talk: Talk, times: int) -> bool:
    return len(talk.replies.asked) == times


async def test_a_turn_stopped_while_it_is_summed_up_asks_the_model_no_more(talk: Talk) -> None:
    first = await talk.begin()
    await talk.seed.send(first.chat_id, "more")
    claim = await talk.seed.claim()

    async def stopped_meanwhile(exchange: Any) -> None:
        await talk.seed.db.fetch(
            "UPDATE turns SET status = 'interrupting' WHERE id = $1", claim.turn_id
        )
        await says(SUMMARY)(exchange)

    await talk.turn(claim, stopped_meanwhile)
    assert await talk.status(claim) == ("interrupted", None, [])
    assert await talk.spent(claim.chat_id) == ["step", "compaction"]


# --- what it does


async def test_a_full_window_is_summed_up_before_the_next_call(talk: Talk, redis: Redis) -> None:
    first = await talk.begin()
    async with listening(redis, first.chat_id) as channel:
        claim = await talk.send(first, "more", says(SUMMARY, FULL + 50), says("well"))
        events: list[Any] = []
        while not events or events[-1].get("status") != "completed":
            events += data(await channel.entry())
    assert await talk.status(claim) == ("completed", None, [])
    before, summing, after = talk.replies.asked
    assert summing["tool_choice"] == "none"
    assert summing["tools"] == before["tools"] == after["tools"]
    assert talk.replies.said(1) == [
        ("user", "hello"),
        ("assistant", "good day"),
        ("user", INSTRUCTION),
    ]
    told = talk.replies.said(2)
    summed_up(told)
    assert told[1:] == [("user", "more")]
    messages = await talk.bench.messages(claim)
    assert [event["message"] for event in events if event["type"] == "message"] == messages[-3:]
    assert "compacting" in [event.get("code") for event in events]
    assert not [event for event in events if SUMMARY in str(event.get("part"))]
    shown = await talk.bench.told(claim)
    assert shown[-1] == "well"
    assert shown[-3] == 'chat_summarized({"source":"automatic","threshold_percent":70})'
    assert orjson.loads(shown[-2].removeprefix("-> ")) == {
        "summary": SUMMARY,
        "source": "automatic",
        "threshold_percent": 70,
        "usage_percent": 70.0,
        "context_tokens": 700,
        "context_limit_tokens": 1000,
    }


async def test_a_summary_is_paid_for_once(talk: Talk) -> None:
    first = await talk.begin()
    claim = await talk.send(first, "more", says(SUMMARY, 750), says("well", 50))
    assert await talk.spent(claim.chat_id) == ["step", "compaction", "step"]
    assert (await talk.bench.turn(claim))["usage"]["input_tokens"] == 800


async def test_a_summary_whose_provider_told_no_usage_is_estimated(talk: Talk) -> None:
    first = await talk.begin()
    claim = await talk.send(first, "more", streaming(events(text(SUMMARY), STOP)), says("well"))
    lines = {row["kind"]: row for row in await ledger(talk.seed.db, claim.chat_id)}
    assert (lines["compaction"]["estimated"], lines["step"]["estimated"]) == (True, False)
    assert lines["compaction"]["output_tokens"] == -(-len(SUMMARY) // 4)


async def test_a_window_with_room_is_left_alone(talk: Talk) -> None:
    first = await talk.begin(FULL - 1)
    await talk.send(first, "more", says("well"))
    assert [words for _, words in talk.replies.said(1)] == ["hello", "good day", "more"]


@pytest.mark.parametrize(("own", "summed"), [(20, True), (100, False)])
async def test_a_user_sets_when_their_chats_are_summed_up(
    talk: Talk, own: int, summed: bool
) -> None:
    first = await talk.begin(FULL if own == 100 else 200)
    key = f"compaction_threshold:{talk.seed.model_id}"
    await write_personal(talk.seed.db, talk.seed.actor.user_id, key, own)
    answers = [says(SUMMARY), says("well")] if summed else [says("well")]
    claim = await talk.send(first, "more", *answers)
    assert await talk.status(claim) == ("completed", None, [])


async def test_a_turn_goes_on_after_it_was_summed_up_in_its_middle(talk: Talk) -> None:
    claim = await talk.turn(
        await talk.seed.claimed("count"),
        calls("add", FULL, a=1, b=2),
        says(SUMMARY),
        calls("add", 200, a=5, b=5),
        says("ten", 210),
    )
    assert await talk.status(claim) == ("completed", None, [])
    told = talk.replies.said(2)
    assert [role for role, _ in told] == ["user", "user"]
    summed_up(told)
    assert told[1] == ("user", "count")
    assert [role for role, _ in talk.replies.said(3)] == ["user", "user", "assistant", "tool"]
    assert (await talk.bench.told(claim))[-1] == "ten"
    await talk.bench.complete(claim)


async def test_the_next_turn_reads_the_summary_and_what_came_after(talk: Talk) -> None:
    first = await talk.begin()
    claim = await talk.send(first, "more", says(SUMMARY), says("well", 50))
    await talk.send(claim, "and more", says("quite", 60))
    told = talk.replies.said(-1)
    summed_up(told)
    assert told[1:] == [("user", "more"), ("assistant", "well"), ("user", "and more")]


async def test_a_cleared_history_is_no_summary(talk: Talk) -> None:
    first = await talk.begin()
    await talk.seed.db.fetch(
        """WITH line AS (INSERT INTO chat_messages (chat_id, turn_id, step, position, role, content,
                visibility, compressed)
            VALUES ($1, $2, 9, 0, 'user', '[]', 'model', true) RETURNING id)
        UPDATE chats SET context_from_message_id = line.id FROM line WHERE chats.id = $1""",
        first.chat_id,
        first.turn_id,
    )
    claim = await talk.send(first, "more", says("well", LIMIT))
    assert await talk.status(claim) == ("completed", None, [])
    assert talk.replies.said(-1) == [("user", "more")]


async def test_an_edit_before_the_summary_brings_the_older_history_back(talk: Talk) -> None:
    first = await talk.begin()
    second = await talk.send(first, "more", says(SUMMARY), says("well", 50))
    await talk.send(second, "and more", says("quite", 60))
    ids = [m["id"] for m in await talk.bench.messages(first) if m["role"] == "user"]
    await talk.edit(first, ids[2], "something else", says("fine", 70))
    summed_up(talk.replies.said(-1))
    assert talk.replies.said(-1)[1:] == [
        ("user", "more"),
        ("assistant", "well"),
        ("user", "something else"),
    ]
    await talk.edit(first, ids[1], "again", says("Anew."), says("as before", 80))
    summing = [words for _, words in talk.replies.said(-2)]
    assert summing == ["hello", "good day", INSTRUCTION]


# --- on demand


async def test_a_user_has_a_chat_summed_up(talk: Talk) -> None:
    first = await talk.begin(entered=100)
    claim = await talk.compact(first, says(SUMMARY))
    assert await talk.status(claim) == ("completed", None, [])
    shown = await talk.bench.told(claim)
    assert shown[-2] == 'chat_summarized({"source":"manual","threshold_percent":70})'
    await talk.send(claim, "more", says("well"))
    told = talk.replies.said(-1)
    summed_up(told)
    assert told[1:] == [("user", "more")]


async def test_a_worker_lost_after_the_summary_does_not_make_another(talk: Talk) -> None:
    first = await talk.begin(entered=100)
    claim = await talk.compact(first, says(SUMMARY))
    await talk.seed.db.fetch(
        """UPDATE turns SET status = 'pending', finished_at = NULL, pending_at = clock_timestamp()
        WHERE id = $1""",
        claim.turn_id,
    )
    again = await talk.turn(await talk.seed.claim())
    assert await talk.status(again) == ("completed", None, [])
    assert len(talk.replies.asked) == 2


async def test_there_may_be_nothing_to_sum_up(talk: Talk) -> None:
    first = await talk.turn(await talk.seed.claimed("hello"), REFUSED)
    claim = await talk.compact(first)
    assert await talk.status(claim) == ("completed", None, ["nothing_to_compact"])


async def test_a_summary_that_was_asked_for_and_fails_is_a_failure(talk: Talk) -> None:
    first = await talk.begin(entered=100)
    claim = await talk.compact(first, says(""))
    assert await talk.status(claim) == ("failed", "generic", [])
    assert await compressed(talk) == 0


async def compressed(talk: Talk) -> int:
    row = await one(talk.seed.db, "SELECT count(*) AS rows FROM chat_messages WHERE compressed")
    return row["rows"]
