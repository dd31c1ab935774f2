"""A reader that hangs up anywhere and comes back anywhere ends with what an undisturbed one has."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from uuid import UUID

import pytest
from redis.asyncio import Redis

from chatd.api.frames import Cursor
from chatd.core.chats import ChatPatch
from chatd.core.deltas import ReasoningDelta, Retrying, TextDelta, ToolCallDelta
from chatd.core.errors import turn_error
from chatd.core.tools import ToolResult
from chatd.core.work import Notice
from chatd.store.editing import patch_chat
from chatd.store.sweeping import expire_turn
from chatd.stream.entry import preview_key
from tests.api.following import Speaker, Stage, staged
from tests.frontend import View
from tests.seed import Seed, answer, planned_call
from tests.store.working import finish
from tests.watching import Watch, watching

CALLS = [planned_call(1), planned_call(2)]

RETRY = Retrying(1, 100, turn_error("overloaded", "x", retryable=True))
NOTICE = Notice(code="unreachable", server_id=None, message="demo: away")


async def acts(stage: Stage, chat_id: UUID) -> AsyncGenerator[str]:
    """Two turns with all that may happen to one; yields after each thing that did."""
    first = await stage.speaker()
    yield "claimed"
    async for act in first_step(stage, first, chat_id):
        yield act
    async for act in lost_in_the_second_step(stage, first, chat_id):
        yield act
    third = await stage.speaker()
    yield "claimed the next"
    third.say(TextDelta("Then nothing."))
    yield "speaks at last"
    await third.end(1)
    yield "over"


async def first_step(stage: Stage, first: Speaker, chat_id: UUID) -> AsyncGenerator[str]:
    first.say(ReasoningDelta("let me "), ReasoningDelta("think"))
    yield "thinks"
    first.say(TextDelta("I will "))
    first.say(TextDelta("add"))
    yield "speaks"
    first.say(ToolCallDelta(0, "call-1-1", "demo__add", "{"), ToolCallDelta(0, "", "", "}"))
    first.say(ToolCallDelta(1, "call-1-2", "demo__add", "{}"))
    yield "calls"
    await first.step(1, *CALLS)
    yield "step committed"
    await first.record.result(CALLS[1], ToolResult("3"))
    yield "one result"
    queued = await stage.seed.send(chat_id, "and then?")
    stage.deps.publisher.announce(chat_id, queued.version)
    yield "queued"
    await first.results(1, *CALLS)
    yield "results committed"


async def lost_in_the_second_step(
    stage: Stage, first: Speaker, chat_id: UUID
) -> AsyncGenerator[str]:
    first.say(TextDelta("It is "))
    first.say(TextDelta("four"))
    yield "wrong"
    first.retry(RETRY)
    yield "retries"
    first.say(TextDelta("It "))
    first.say(TextDelta("is th"))
    yield "speaks again"
    await lose(stage, chat_id)
    yield "lost"
    second = await stage.speaker()
    first.say(TextDelta("nobody may hear this"))
    yield "claimed by another"
    second.record.notify([NOTICE])
    second.say(TextDelta("It is"))
    first.say(TextDelta("nor this"))
    yield "speaks in its place"
    await patch_chat(stage.seed.db, stage.seed.actor, chat_id, ChatPatch(title="Sums"))
    yield "changed without a word"
    second.say(TextDelta(" three."))
    yield "speaks on"
    await second.end(2)
    yield "ended and promoted"


async def lose(stage: Stage, chat_id: UUID) -> None:
    """The running turn's lease is over, and a sweeper says so."""
    row = await stage.seed.db.fetch_one(
        "UPDATE turns SET lease_expires_at = clock_timestamp() - interval '1 second'"
        " WHERE status = 'running' RETURNING id"
    )
    assert row is not None
    version = await expire_turn(stage.seed.db, row["id"], chat_id)
    assert version
    stage.deps.publisher.announce(chat_id, version)


def over(watch: Watch) -> bool:
    """Every turn it heard of has ended, the last one too, and nothing waits.

    Whoever was cut off before a first snapshot told of the turn may hear of the second only.
    """
    done = set(watch.view.turns.values()) == {"completed"} and "Then nothing." in last_words(watch)
    return done and not watch.view.queue and watch.view.status == "waiting"


def last_words(watch: Watch) -> str:
    """What the last message says."""
    last = watch.view.messages[max(watch.view.messages)]
    return last["content"][0].get("text", "")


def seen_by(watch: Watch, index: int) -> View:
    """What the frontend knew after this event."""
    view = View()
    for event in watch.events[: index + 1]:
        view.take(event)
    return view


async def test_from_every_event_at_every_moment(seed: Seed, redis: Redis) -> None:
    chat_id = await seed.chat_id("1 + 2?")
    async with staged(seed, redis, doors=2, poll_s=0.5) as stage, AsyncExitStack() as stack:
        steady = await stack.enter_async_context(stage.watching(chat_id))
        back: list[tuple[str, Watch]] = []
        async for act in acts(stage, chat_id):
            await stage.delivered()
            here: list[Watch] = []
            for index, event in enumerate(list(steady.events)):
                stream = await stage.stream(chat_id, event.id, door=index % 2)
                watch = await stack.enter_async_context(watching(stream, seen_by(steady, index)))
                back.append((f"after event {index} ({event.name}), back when {act}", watch))
                here.append(watch)
            for watch in here:
                await watch.until(lambda w: w.view.preview == steady.view.preview)
        await steady.until(over)
        assert len(steady.view.turns) == 2
        assert "It is three." in steady.view.shown
        assert len(back) > 350
        for when, watch in back:
            await watch.until(over)
            assert watch.view.state() == steady.view.state(), when
        async with stage.watching(chat_id) as late:
            await late.until(lambda w: w.view.state() == steady.view.state())


@pytest.mark.parametrize("loss", ["previews", "everything"])
async def test_what_redis_loses_is_not_missed(seed: Seed, redis: Redis, loss: str) -> None:
    """Without previews a reader waits for the next step; without hints, for the version check."""
    chat_id = await seed.chat_id("1 + 2?")
    async with staged(seed, redis, poll_s=0.01) as stage, AsyncExitStack() as stack:
        if loss == "everything":
            await stage.deps.publisher.close()
        steady = await stack.enter_async_context(stage.watching(chat_id))
        await steady.until(lambda w: w.view.status)
        back: list[Watch] = []
        async for _ in acts(stage, chat_id):
            if loss == "previews":
                await stage.delivered()
            await redis.delete(preview_key(chat_id))
            index = len(steady.events) - 1
            stream = await stage.stream(chat_id, steady.events[index].id)
            view = seen_by(steady, index)
            back.append(await stack.enter_async_context(watching(stream, view)))
        for watch in (steady, *back):
            await watch.until(over)
            assert watch.view.state() == steady.view.state()
        assert loss == "previews" or not steady.view.shown


async def test_a_reader_cut_off_in_a_long_history_still_knows_there_is_more(
    seed: Seed, redis: Redis
) -> None:
    claim = await seed.claimed()
    await finish(seed, claim, *(answer(f"{step}", step) for step in range(1, 61)))
    async with staged(seed, redis) as stage:
        async with stage.watching(claim.chat_id) as steady:
            await steady.until(lambda w: w.view.status)
        assert (len(steady.view.messages), steady.view.has_more) == (50, True)
        for index in (0, 7, 49, 50, 51):
            cut = stage.watching(
                claim.chat_id, cursor=steady.events[index].id, view=seen_by(steady, index)
            )
            async with cut as back:
                await back.until(lambda w: w.view.status)
            assert back.view.state() == steady.view.state()


@pytest.mark.parametrize("cursor", ["", "x", "1-2-3", "1-1-1-1", "-1-0-0-0", "1" * 40, "later"])
async def test_an_unknown_cursor_gets_everything_anew(
    seed: Seed, redis: Redis, cursor: str
) -> None:
    chat_id = await seed.chat_id()
    if cursor == "later":
        cursor = Cursor.of(chat_id, 9, 1).encode().decode()
    async with staged(seed, redis) as stage, stage.watching(chat_id, cursor=cursor) as watch:
        await watch.until(lambda w: w.view.status)
        names = [event.name for event in watch.events]
        assert names == ["history_reset", "message", "queue_update", "turn", "status"]
        assert watch.view.has_more is False


async def test_a_cursor_older_than_an_edit_gets_everything_anew(seed: Seed, redis: Redis) -> None:
    claim = await seed.claimed("first")
    async with staged(seed, redis) as stage, stage.watching(claim.chat_id) as steady:
        await steady.until(lambda w: w.view.status)
        seen = len(steady.events)
        await seed.db.fetch("UPDATE chats SET version = 9, history_version = 9")
        stage.deps.publisher.announce(claim.chat_id, 9)
        await steady.until(lambda w: w.view.status and len(w.events) > seen)
        assert steady.events[seen].name == "history_reset"
        places = [Cursor.of(claim.chat_id, version, 1).encode().decode() for version in (8, 9)]
        for cursor, told in ((steady.events[0].id, True), (places[0], True), (places[1], False)):
            async with stage.watching(claim.chat_id, cursor=cursor) as back:
                await back.until(lambda w: w.view.status)
                assert (back.events[0].name == "history_reset") is told, cursor


async def test_the_cursor_of_another_chat_gets_everything_anew(seed: Seed, redis: Redis) -> None:
    chat_id, other = await seed.chat_id("mine"), await seed.chat_id("other")
    async with staged(seed, redis) as stage:
        async with stage.watching(other) as watch:
            await watch.until(lambda w: w.view.status)
        async with stage.watching(chat_id, cursor=watch.events[-1].id) as back:
            await back.until(lambda w: w.view.status)
        assert back.events[0].name == "history_reset"
        assert len(back.view.messages) == 1


async def test_coming_back_to_an_idle_chat_repeats_no_message(seed: Seed, redis: Redis) -> None:
    """Also after an edit long ago: the last event's cursor says that all was told."""
    claim = await seed.claimed()
    await finish(seed, claim, answer("a"))
    await seed.db.fetch("UPDATE chats SET history_version = version")
    async with staged(seed, redis) as stage:
        async with stage.watching(claim.chat_id) as watch:
            await watch.until(lambda w: w.view.status)
        async with stage.watching(claim.chat_id, cursor=watch.events[-1].id) as back:
            await back.until(lambda w: w.view.status)
        names = [event.name for event in back.events]
        assert names == ["preview_reset", "queue_update", "turn", "status"]
