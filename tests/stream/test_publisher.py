"""What a turn publishes: the first delta at once, the rest together, never a number twice."""

import random
from typing import Any, cast

from redis.asyncio import Redis

from chatd.core.messages import TextPart
from chatd.dev.valkey import Valkey
from chatd.stream.entry import owner_channel, preview_key
from chatd.stream.publisher import ENDED_TTL_S, RUNNING_TTL_S, Publisher, TurnFeed
from tests.stream.listening import CHAT, NOBODY, data, kept, listening, make_claim, texts
from tests.waiting import soon, until


def word(text: str) -> TextPart:
    return TextPart(type="text", text=text)


# --- when


async def test_the_first_delta_goes_at_once_and_the_others_together(
    redis: Redis, publisher: Publisher
) -> None:
    feed = TurnFeed(publisher, make_claim())
    async with listening(redis) as channel:
        feed.delta(word("a"))
        assert texts(await channel.entry()) == ["a"]
        for text in "bcd":
            feed.delta(word(text))
        feed.event("notice", {})  # goes at once, and what was before it goes first
        assert texts(await channel.entry()) == ["bcd"]


async def test_one_feeds_haste_is_not_anothers(redis: Redis, publisher: Publisher) -> None:
    patient, hasty = TurnFeed(publisher, make_claim()), TurnFeed(publisher, make_claim(version=9))
    async with listening(redis) as channel:
        for text in "ab":
            patient.delta(word(text))
        assert texts(await channel.entry()) == ["ab"]
        patient.delta(word("c"))
        hasty.committed(10, 1, [])
        publisher.announce(CHAT, 11)
        assert (await channel.entry()).version == 10
        assert (await channel.entry()).version == 11
        patient.delta(word("d"))
        patient.committed(12, 1, [])
        assert texts(await channel.entry()) == ["cd"]


async def test_what_waits_goes_when_the_window_closes(redis: Redis) -> None:
    publisher = Publisher(redis, window_s=0.001)
    publisher.start()
    feed = TurnFeed(publisher, make_claim())
    async with listening(redis) as channel:
        for text in "abc":
            feed.delta(word(text))
            assert texts(await channel.entry()) == [text]
    await publisher.close()


async def test_after_a_commit_the_next_delta_goes_at_once(
    redis: Redis, publisher: Publisher
) -> None:
    feed = TurnFeed(publisher, make_claim())
    async with listening(redis) as channel:
        feed.delta(word("a"))
        await channel.entry()
        feed.delta(word("b"))
        feed.committed(3, 1, [("status", {})])
        assert texts(await channel.entry()) == ["b"]
        assert (await channel.entry()).version == 3
        feed.delta(word("c"))
        assert texts(await channel.entry()) == ["c"]


async def test_closing_sends_what_waits(redis: Redis) -> None:
    publisher = Publisher(redis, window_s=3600)
    publisher.start()
    feed = TurnFeed(publisher, make_claim())
    async with listening(redis) as channel:
        feed.delta(word("a"))
        await channel.entry()
        feed.delta(word("b"))
        await publisher.close()
        assert texts(await channel.entry()) == ["b"]


# --- what


async def test_only_text_of_one_kind_and_role_is_joined(redis: Redis, publisher: Publisher) -> None:
    feed = TurnFeed(publisher, make_claim())
    call = {"type": "tool-call", "tool_call_id": "1", "args_delta": "{"}
    async with listening(redis) as channel:
        for part in (
            word("a"),
            word("b"),
            {"type": "reasoning", "text": "c"},
            {"type": "reasoning", "text": "d"},
            word("e"),
            call,
            call,
            word("f"),
        ):
            feed.delta(part)
        feed.delta(word("g"), role="tool")
        events = data(await channel.entry())
    assert [(e["role"], e["part"].get("text")) for e in events] == [
        ("assistant", "ab"),
        ("assistant", "cd"),
        ("assistant", "e"),
        ("assistant", None),
        ("assistant", None),
        ("assistant", "f"),
        ("tool", "g"),
    ]
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5, 6, 7]


async def test_numbers_have_no_gaps_whatever_is_published(
    redis: Redis, publisher: Publisher
) -> None:
    choose = random.Random(7)
    feed = TurnFeed(publisher, make_claim(attempt=3))
    seen: list[int] = []
    text = ""
    async with listening(redis) as channel:
        for version in range(3, 60):
            for _ in range(choose.randrange(4)):
                feed.delta(word(f"{version} "))
                text += f"{version} "
            if choose.random() < 0.3:
                feed.event("notice", {})
            if choose.random() < 0.2:
                publisher.announce(NOBODY, 1)
            events: list[Any] = [("message", {}), ("status", {})][: choose.randrange(3)]
            feed.committed(version, version, events)
        shown = ""
        while True:
            entry = await channel.entry()
            for event in data(entry):
                assert (event["attempt"], event["turn_id"]) == (3, entry.turn_id)
                seen.append(event["seq"])
                shown += event.get("part", {}).get("text", "")
            assert entry.first == entry.last - len(entry.events) + 1
            if entry.version == 59:
                break
    assert seen == list(range(1, len(seen) + 1))
    assert shown == text


# --- what is kept for readers who come late


async def test_the_preview_is_kept_from_its_first_part(redis: Redis, prompt: Publisher) -> None:
    feed = TurnFeed(prompt, make_claim())
    async with listening(redis) as channel:
        for text in "abc":
            feed.delta(word(text))
            await channel.entry()
    entries = await kept(redis)
    assert [texts(entry) for entry in entries] == [["a"], ["b"], ["c"]]
    assert [entry.start for entry in entries] == [1, 1, 1]


async def test_the_first_part_of_a_preview_drops_the_one_before(
    redis: Redis, prompt: Publisher
) -> None:
    feed = TurnFeed(prompt, make_claim())
    async with listening(redis) as channel:
        for text in "ab":
            feed.delta(word(text))
            await channel.entry()
        feed.committed(3, 1, [("status", {})])
        await channel.entry()
        feed.delta(word("c"))
        await channel.entry()
    assert [texts(entry) for entry in await kept(redis)] == [["c"]]


async def test_what_was_committed_before_it_could_be_sent_is_not_kept(
    redis: Redis, publisher: Publisher
) -> None:
    feed = TurnFeed(publisher, make_claim())
    async with listening(redis) as channel:
        feed.delta(word("a"))
        feed.committed(3, 1, [("status", {})])
        feed.delta(word("b"))
        for _ in range(3):
            await channel.entry()
    assert [texts(entry) for entry in await kept(redis)] == [["b"]]


async def test_an_overtaken_attempt_keeps_nothing(redis: Redis, prompt: Publisher) -> None:
    stale = TurnFeed(prompt, make_claim(version=2, attempt=1))
    current = TurnFeed(prompt, make_claim(version=4, attempt=2))
    async with listening(redis) as channel:
        for feed, text in ((stale, "old"), (current, "new"), (stale, "late"), (stale, "later")):
            feed.delta(word(text))
            assert texts(await channel.entry()) == [text]
    assert [texts(entry) for entry in await kept(redis)] == [["new"]]
    assert prompt.failures == 0


async def test_a_preview_outlives_its_turn_by_a_minute(redis: Redis, publisher: Publisher) -> None:
    feed = TurnFeed(publisher, make_claim())

    async def ttl() -> int:
        return await cast(Any, redis).ttl(preview_key(CHAT))

    async with listening(redis) as channel:
        feed.delta(word("a"))
        await channel.entry()
        assert ENDED_TTL_S < await ttl() <= RUNNING_TTL_S
        feed.committed(3, 1, [("status", {})], ended=True)
        assert (await channel.entry()).ended
        assert 0 < await ttl() <= ENDED_TTL_S
        after = TurnFeed(publisher, make_claim(version=4))
        after.delta(word("b"))
        await channel.entry()
        assert ENDED_TTL_S < await ttl() <= RUNNING_TTL_S


# --- when something is wrong


async def test_redis_may_go_and_come_back(valkey: Valkey, redis: Redis) -> None:
    publisher = Publisher(redis, window_s=0)
    publisher.start()
    feed = TurnFeed(publisher, make_claim())
    feed.delta(word("a"))
    await until(lambda: kept(redis))
    valkey.kill()
    try:
        feed.delta(word("b"))
        await soon(lambda: publisher.failures == 1)
        feed.committed(3, 1, [("status", {})])
        await soon(lambda: publisher.failures >= 2)
    finally:
        await valkey.restart()
    async with listening(redis) as channel:
        feed.delta(word("c"))
        entry = await channel.entry()
        assert (entry.start, entry.first, texts(entry)) == (4, 4, ["c"])
    await publisher.close()


async def test_one_event_that_cannot_be_written_does_not_silence_the_others(
    redis: Redis, publisher: Publisher
) -> None:
    broken, sound = TurnFeed(publisher, make_claim()), TurnFeed(publisher, make_claim(version=9))
    async with listening(redis) as channel:
        broken.delta({"type": "text", "text": "\ud800"})
        await soon(lambda: publisher.failures)
        sound.delta(word("a"))
        assert texts(await channel.entry()) == ["a"]


# --- an owner's watchers


async def test_an_owners_watchers_hear_of_what_changes_the_chats_looks(
    redis: Redis, prompt: Publisher
) -> None:
    pubsub = cast(Any, redis.pubsub())
    await pubsub.subscribe(owner_channel(NOBODY))
    assert (await pubsub.get_message(timeout=10))["type"] == "subscribe"
    feed = TurnFeed(prompt, make_claim())
    async with listening(redis) as channel:
        feed.committed(3, 1, [("message", {})], message_ids=(1,))
        await channel.entry()
    feed.committed(4, 2, [("status", {})])
    prompt.announce(NOBODY, 5, owner_id=NOBODY)
    heard = [(await pubsub.get_message(timeout=10))["data"] for _ in range(2)]
    assert sorted(heard) == sorted([str(CHAT).encode(), str(NOBODY).encode()])
    assert await pubsub.get_message(timeout=0) is None
    await pubsub.aclose()
