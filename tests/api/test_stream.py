"""Streams as responses: how they begin, what ends them, and what does not."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis

from chatd.api.flow import Pace
from chatd.api.sse import EventStream
from chatd.commands import Commands, Submitted
from chatd.core.chats import NewChat, NewTurn, Once
from chatd.core.deltas import TextDelta, ToolCallDelta
from chatd.core.errors import BadRequest, Unavailable, turn_error
from chatd.core.turns import TurnStatus
from chatd.queue import Stops
from chatd.store.db import Database
from chatd.store.following import RECENT_TURNS
from chatd.store.ids import new_id
from chatd.stream.mailbox import MAX_WAITING
from tests.api.following import Stage, allowed, staged
from tests.relay import relay_to
from tests.seed import Seed, answer, said
from tests.store.working import finish
from tests.waiting import soon
from tests.watching import Watch, watching

ONCE = Once("/path", "key", b"x" * 32)


@pytest.fixture
async def stage(seed: Seed, redis: Redis) -> AsyncGenerator[Stage]:
    async with staged(seed, redis) as stage:
        yield stage


def commands(stage: Stage) -> Commands:
    """Its stops are never sent: no worker listens here."""
    deps = stage.deps
    return Commands(stage.seed.db, deps.wakes, deps.publisher, Stops(Redis()))


async def post(stage: Stage, chat_id: UUID | None = None, once: Once | None = None) -> EventStream:
    """As the front door does for a message whose answer is to be streamed."""
    made, actor, turn = commands(stage), stage.seed.actor, NewTurn(said("hello"))
    target = chat_id or new_id()

    async def submit() -> Submitted:
        if chat_id is not None:
            return await made.send_message(actor, chat_id, turn, once)
        return await made.create_chat(actor, NewChat(turn), once, chat_id=target)

    return await stage.doors[0].submitted(target, allowed(), submit)


@asynccontextmanager
async def posting(stage: Stage, *args: Any) -> AsyncGenerator[Watch]:
    async with watching(await post(stage, *args)) as watch:
        yield watch


def names(watch: Watch) -> list[str]:
    return [event.name for event in watch.events]


# --- a new turn's own stream


async def test_a_new_chats_stream_is_its_turn_from_the_answer_to_the_end(stage: Stage) -> None:
    async with posting(stage) as watch:
        speaker = await stage.speaker()
        speaker.say(TextDelta("hello "), TextDelta("you"))
        await speaker.end(1)
        await watch.over()
    assert watch.status == 201
    assert watch.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert watch.headers["cache-control"] == "no-cache, no-transform"
    assert "content-length" not in watch.headers
    assert names(watch) == ["turn", "status", "message_part", "message", "status"]
    first = watch.events[0].data
    assert first["turn"]["chat_id"] == first["id"]
    assert watch.view.turns[first["turn"]["id"]] == "completed"
    assert stage.doors[0].hub.followers == 0


async def test_a_queued_messages_stream_waits_for_its_turn(stage: Stage) -> None:
    chat_id = await stage.seed.chat_id()
    async with posting(stage, chat_id) as watch:
        await watch.until(lambda w: w.events)
        own = watch.events[0].data["turn"]["id"]
        assert (watch.events[0].data["queued"], watch.view.turns[own]) == (True, "queued")
        other = await stage.speaker()
        other.say(TextDelta("not for you"))
        await stage.delivered()
        await other.end(1)
        await watch.until(lambda w: w.view.turns[own] == "pending")
        speaker = await stage.speaker()
        speaker.say(TextDelta("for you"))
        await watch.until(lambda w: w.view.shown)
        await speaker.end(1)
        await watch.over()
    assert watch.view.turns == {own: "completed"}
    assert watch.view.shown == ["for you"]
    assert {message["turn_id"] for message in watch.view.messages.values()} == {own}
    assert [message["role"] for message in watch.view.messages.values()] == ["user", "assistant"]


async def test_what_fails_before_the_commit_is_no_stream(stage: Stage) -> None:
    async def refused() -> Submitted:
        raise BadRequest

    with pytest.raises(BadRequest):
        await stage.doors[0].submitted(new_id(), allowed(), refused)
    assert stage.doors[0].hub.followers == 0


async def test_hanging_up_stops_nothing_and_the_same_key_attaches_again(stage: Stage) -> None:
    async with posting(stage, None, ONCE) as watch:
        await watch.until(lambda w: w.events)
    assert stage.doors[0].hub.followers == 0
    speaker = await stage.speaker()
    speaker.say(TextDelta("hello "))
    await stage.delivered()
    async with posting(stage, None, ONCE) as again:
        await again.until(lambda w: w.view.preview.text == "hello ")
        speaker.say(TextDelta("again"))
        await speaker.end(1)
        await again.over()
    assert again.events[0].data["id"] == watch.events[0].data["id"]
    assert again.view.shown == ["hello ", "hello again"]
    assert set(again.view.turns.values()) == {"completed"}


async def test_attaching_to_a_turn_that_is_over_tells_how_it_ended(stage: Stage) -> None:
    async with posting(stage, None, ONCE) as watch:
        await watch.until(lambda w: w.events)
    chat_id = UUID(watch.events[0].data["id"])
    speaker = await stage.speaker()
    await speaker.end(1)
    await stage.seed.send(chat_id, "another")
    async with posting(stage, None, ONCE) as again:
        await again.over()
    assert names(again)[0] == "turn"
    assert names(again)[-1] == "status"
    assert again.events[-1].data["status"] == "completed"


async def test_attaching_to_an_old_turn_tells_all_of_it_and_how_it_ended(stage: Stage) -> None:
    async with posting(stage, None, ONCE) as watch:
        await watch.until(lambda w: w.events)
    chat_id = UUID(watch.events[0].data["id"])
    await finish(stage.seed, await stage.seed.claim(), answer("first"))
    for _ in range(RECENT_TURNS + 1):
        await stage.seed.send(chat_id, "another")
        await finish(stage.seed, await stage.seed.claim(), answer("a"), answer("b", 2))
    async with posting(stage, None, ONCE) as again:
        await again.over()
    assert names(again) == ["turn", "message", "message", "queue_update", "turn", "status"]
    assert again.events[-1].data["status"] == "completed"
    assert not again.events[-1].id.startswith("0-")


async def test_a_queued_turns_stream_ends_with_its_cancellation(stage: Stage) -> None:
    chat_id = await stage.seed.chat_id()
    async with posting(stage, chat_id) as watch:
        await watch.until(lambda w: w.events)
        own = watch.events[0].data["turn"]["id"]
        await stage.seed.db.fetch(
            "WITH c AS (UPDATE chats SET version = version + 1 WHERE id = $1 RETURNING version)"
            " UPDATE turns SET status = 'cancelled', version = c.version FROM c"
            " WHERE turns.id = $2",
            chat_id,
            UUID(own),
        )
        stage.deps.publisher.announce(chat_id, 3)
        await watch.over()
    assert watch.view.turns == {own: "cancelled"}


async def test_a_queued_turns_stream_begins_after_what_the_chat_has(stage: Stage) -> None:
    claim = await stage.seed.claimed()
    await stage.seed.send(claim.chat_id)
    async with stage.watching(claim.chat_id) as whole:
        await whole.until(lambda w: w.view.status)
    async with posting(stage, claim.chat_id) as watch:
        await watch.until(lambda w: w.events)
    last = max(whole.view.messages)
    assert watch.events[0].id.split("-")[:2] == ["4", str(last)]


async def test_following_the_chat_from_a_turns_own_stream_misses_no_other_turns_message(
    stage: Stage,
) -> None:
    chat_id = await stage.seed.chat_id()
    async with posting(stage, chat_id) as watch:
        await watch.until(lambda w: w.events)
        other = await stage.speaker()
        other.say(TextDelta("of the other turn"))
        await other.end(1)
        own = watch.events[0].data["turn"]["id"]
        await watch.until(lambda w: w.view.turns[own] == "pending")
        speaker = await stage.speaker()
        speaker.say(TextDelta("own"))
        await speaker.end(1)
        await watch.over()
    async with stage.watching(chat_id, cursor=watch.events[-1].id) as whole:
        await whole.until(lambda w: w.view.status)
    missed = [message["turn_id"] for message in whole.view.messages.values()]
    assert str(other.claim.turn_id) in missed


async def test_entries_that_say_nothing_to_a_reader_send_it_nothing(stage: Stage) -> None:
    chat_id = await stage.seed.chat_id()
    async with posting(stage, chat_id) as watch:
        await watch.until(lambda w: w.events)
        other = await stage.speaker()
        for word in ("not ", "for ", "you"):
            other.say(TextDelta(word))
            await stage.delivered()
        await other.end(1)
        own = watch.events[0].data["turn"]["id"]
        await watch.until(lambda w: w.view.turns[own] == "pending")
    assert watch.comments == 1


# --- how a turn may end


async def test_a_failure_is_an_error_and_its_preview_is_withdrawn(stage: Stage) -> None:
    async with posting(stage) as watch:
        speaker = await stage.speaker()
        speaker.say(TextDelta("half"))
        speaker.record.withdraw()
        error = turn_error("auth", "no")
        await speaker.record.finish(TurnStatus.FAILED, error=error)
        await watch.over()
    assert names(watch)[-3:] == ["preview_reset", "chat_error", "status"]
    assert watch.events[-2].data["type"] == "error"
    assert watch.view.status == "error"


async def test_a_stop_during_a_call_takes_back_the_call_that_was_shown(stage: Stage) -> None:
    async with posting(stage) as watch:
        speaker = await stage.speaker()
        speaker.say(ToolCallDelta(0, "c", "demo__add", "{"))
        await speaker.end(1, TurnStatus.INTERRUPTED)
        await watch.over()
    assert names(watch)[-3:] == ["message_part", "preview_reset", "status"]
    assert watch.error is None


async def test_handing_back_is_told_from_the_rows(stage: Stage) -> None:
    async with posting(stage) as watch:
        speaker = await stage.speaker()
        speaker.say(TextDelta("half"))
        await speaker.record.hand_back([])
        await watch.until(lambda w: w.view.status == "pending" and w.view.shown)
        again = await stage.speaker()
        again.say(TextDelta("whole"))
        await again.end(1)
        await watch.over()
    assert watch.error is None
    assert watch.view.shown[-1] == "whole"


# --- following a chat


async def test_a_comment_comes_at_once_and_while_nothing_happens(seed: Seed, redis: Redis) -> None:
    async with staged(seed, redis) as stage:
        chat_id = await seed.chat_id()
        stage.doors[0] = replace(stage.doors[0], pace=Pace(heartbeat_s=0.001))
        async with stage.watching(chat_id) as watch:
            await watch.until(lambda w: w.comments > 3)
        assert names(watch) == ["message", "queue_update", "turn", "status"]


async def test_a_reader_without_a_cursor_may_say_which_message_it_has(stage: Stage) -> None:
    claim = await stage.seed.claimed()
    ended = await finish(stage.seed, claim, answer("a"), answer("b", 2))
    async with stage.watching(claim.chat_id, after_id=ended.messages[0][0]) as watch:
        await watch.until(lambda w: w.view.status)
    assert list(watch.view.messages) == [ended.messages[1][0]]


async def test_a_reader_that_has_the_newest_message_is_told_none_of_them_again(
    stage: Stage,
) -> None:
    claim = await stage.seed.claimed()
    ended = await finish(stage.seed, claim, answer("a"))
    async with stage.watching(claim.chat_id, after_id=ended.messages[0][0]) as watch:
        await watch.until(lambda w: w.view.status)
        sent = await commands(stage).send_message(
            stage.seed.actor, claim.chat_id, NewTurn(said("b"))
        )
        await watch.until(lambda w: w.view.messages)
    told = [event.data["message"]["id"] for event in watch.events if event.name == "message"]
    assert told == [sent.body["message"]["id"]]


async def test_a_message_that_the_chat_does_not_have_begins_afresh(stage: Stage) -> None:
    claim = await stage.seed.claimed()
    ended = await finish(stage.seed, claim, answer("a"))
    newest = ended.messages[0][0]
    async with stage.watching(claim.chat_id, after_id=newest + 1000) as watch:
        await watch.until(lambda w: w.view.status)
    assert names(watch)[0] == "history_reset"
    assert list(watch.view.messages)[-1] == newest


async def test_a_deleted_chat_ends_its_streams(stage: Stage) -> None:
    chat_id = await stage.seed.chat_id()
    async with stage.watching(chat_id) as watch:
        await watch.until(lambda w: w.view.status)
        await commands(stage).delete_chat(stage.seed.actor, chat_id)
        await watch.over()
    assert watch.events[-1].name == "chat_error"
    assert watch.events[-1].data["error"]["kind"] == "auth"


async def test_a_revoked_permit_ends_its_stream(stage: Stage) -> None:
    chat_id = await stage.seed.chat_id()
    permit = allowed()
    async with watching(
        await stage.doors[0].chat(chat_id, permit, cursor=None, after_id=None)
    ) as watch:
        await watch.until(lambda w: w.view.status)
        assert permit in permit.held
        permit.revoke()
        await watch.over()
    assert watch.events[-1].data["error"]["kind"] == "auth"
    assert permit.held == set()


async def test_a_process_that_drains_ends_its_streams(stage: Stage) -> None:
    chat_id = await stage.seed.chat_id()
    async with stage.watching(chat_id) as watch:
        await watch.until(lambda w: w.view.status)
        stage.doors[0].hub.drain()
        await watch.over()
    assert "chat_error" not in names(watch)


async def test_a_reader_that_takes_nothing_is_dropped(stage: Stage, redis: Redis) -> None:
    chat_id = await stage.seed.chat_id()
    async with stage.watching(chat_id) as slow, stage.watching(chat_id) as quick:
        await slow.until(lambda w: w.view.status)
        slow.reading.clear()
        speaker = await stage.speaker()
        await soon(lambda: slow.stuck)
        for _ in range(MAX_WAITING + 2):
            speaker.record.notify([{"code": "x", "server_id": None, "message": "m"}])
        await stage.delivered()
        await quick.until(lambda w: names(w).count("notice") == MAX_WAITING + 2)
        assert not quick.ended.is_set()
        slow.reading.set()
        await slow.over()
        assert names(slow).count("notice") < MAX_WAITING + 2


# --- PostgreSQL is away


async def test_without_the_database_there_is_no_stream(seed: Seed, redis: Redis) -> None:
    nowhere = Database("postgresql://x:x@127.0.0.1:9/x", pool_size=1)
    async with staged(seed, redis, db=nowhere) as stage:
        with pytest.raises(Unavailable):
            await stage.stream(new_id())
        assert stage.doors[0].hub.followers == 0


async def test_a_stream_outlives_an_outage_of_the_database(
    seed: Seed, redis: Redis, database_url: str
) -> None:
    claim = await seed.claimed()
    async with relay_to(database_url) as (relay, url):
        db = Database(url, pool_size=2)
        async with (
            staged(seed, redis, db=db, poll_s=0.05) as stage,
            stage.watching(claim.chat_id) as watch,
        ):
            await watch.until(lambda w: w.view.status == "running")
            relay.refuse()
            ended = await finish(seed, claim, answer("meanwhile"))
            stage.deps.publisher.announce(claim.chat_id, ended.version)
            await soon(lambda: relay.refused > 3)
            assert not watch.ended.is_set()
            relay.accept()
            await watch.until(lambda w: w.view.status == "waiting")
        await db.close()
    assert watch.view.turns == {str(claim.turn_id): "completed"}
