"""What an edit looks like to those who follow: the one who edits, the others, the old turn's."""

from collections.abc import AsyncGenerator
from functools import partial

import pytest
from redis.asyncio import Redis

from chatd.core.chats import NewTurn
from chatd.core.deltas import TextDelta
from tests.api.following import Stage, allowed, staged
from tests.api.test_stream import commands, posting
from tests.seed import Seed, answer, said
from tests.store.working import finish
from tests.watching import watching


@pytest.fixture
async def stage(seed: Seed, redis: Redis) -> AsyncGenerator[Stage]:
    async with staged(seed, redis) as stage:
        yield stage


async def test_an_edit_is_streamed_to_its_end_and_the_old_turns_stream_ends(stage: Stage) -> None:
    async with posting(stage) as old:
        await old.until(lambda w: w.events)
        first = old.events[0].data["turn"]
        speaker = await stage.speaker()
        speaker.say(TextDelta("not this"))
        await old.until(lambda w: w.view.shown)
        chat_id = speaker.claim.chat_id
        edit = partial(
            commands(stage).edit_message,
            stage.seed.actor,
            chat_id,
            first["user_message_id"],
            NewTurn(said("other")),
        )
        async with watching(await stage.doors[0].submitted(chat_id, allowed(), edit, 200)) as new:
            await old.over()
            speaker = await stage.speaker()
            speaker.say(TextDelta("but this"))
            await speaker.end(1)
            await new.over()
    assert old.view.turns[first["id"]] == "superseded"
    assert old.view.shown == []
    assert new.status == 200
    assert new.events[0].data["deleted_message_ids"] == [first["user_message_id"]]
    assert new.view.shown == ["but this"]
    assert new.view.turns == {new.events[0].data["turn"]["id"]: "completed"}


async def test_whoever_follows_the_chat_drops_what_was_edited(stage: Stage) -> None:
    claim = await stage.seed.claimed("one")
    async with watching(
        await stage.doors[0].chat(claim.chat_id, allowed(), cursor=None, after_id=None)
    ) as watch:
        await watch.until(lambda w: w.view.messages)
        (message,) = watch.view.messages
        await commands(stage).edit_message(
            stage.seed.actor, claim.chat_id, message, NewTurn(said("other"))
        )
        await watch.until(lambda w: [*w.view.messages] != [message] and w.view.messages)
    assert "history_reset" in [event.name for event in watch.events]
    assert [m["content"] for m in watch.view.messages.values()] == [said("other")]


async def test_whoever_has_a_message_that_was_edited_meanwhile_begins_afresh(stage: Stage) -> None:
    """It says which message it has and no cursor: it asked for the list before the edit."""
    claim = await stage.seed.claimed("one")
    (last,) = (await finish(stage.seed, claim, answer("first"))).messages
    edited = await commands(stage).regenerate(stage.seed.actor, claim.chat_id, NewTurn([]))
    async with stage.watching(claim.chat_id, after_id=last[0]) as watch:
        await watch.until(lambda w: w.view.status)
    assert watch.events[0].name == "history_reset"
    assert list(watch.view.messages) == [edited.body["message"]["id"]]
