"""Following: one connection, whatever happens to it, and the version check behind it."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from chatd.dev.valkey import Valkey
from chatd.stream.entry import channel, hint, pack, preview_key
from chatd.stream.hub import GONE, Hub, Subscription
from chatd.stream.listener import Listener
from chatd.stream.mailbox import MAX_WAITING, MAX_WAITING_BYTES
from tests.relay import relay_to
from tests.stream.listening import CHAT
from tests.waiting import soon, until


class Versions:
    """The database's answer: what a test says it is."""

    def __init__(self) -> None:
        self.known: dict[UUID, int] = {}
        self.broken = False
        self.asked = 0

    async def __call__(self, chat_ids: Sequence[UUID]) -> Mapping[UUID, int]:
        self.asked += 1
        if self.broken:
            raise OSError("away")
        return {chat: self.known[chat] for chat in chat_ids if chat in self.known}


@pytest.fixture
def versions() -> Versions:
    return Versions()


@pytest.fixture
async def hub(redis: Redis, versions: Versions) -> AsyncGenerator[Hub]:
    hub = Hub(redis, versions, poll_s=0.02)
    hub.start()
    yield hub
    await hub.close()


async def publish(redis: Redis, chat_id: UUID, version: int) -> int:
    """Answers how many connections heard it."""
    return await cast(Any, redis).publish(channel(chat_id), pack(hint(version)))


async def received(subscription: Subscription, version: int) -> list[int]:
    """The versions that came, up to this one."""
    found: list[int] = []
    while version not in found:
        entries = await subscription.wait(10)
        assert entries or subscription.version, "nothing came"
        found += [entry.version for entry in entries]
    return found


async def clients(redis: Redis) -> int:
    found = await cast(Any, redis).execute_command("CLIENT", "LIST", "TYPE", "pubsub")
    return len(found.splitlines())


# --- Redis is there


async def test_all_followers_of_all_chats_share_one_connection(redis: Redis, hub: Hub) -> None:
    chats = [uuid4() for _ in range(50)]
    followers = await asyncio.gather(*(hub.subscribe(chat) for chat in chats * 3))
    assert hub.followers == 150
    assert await clients(redis) == 1
    for number, chat in enumerate(chats, 1):
        assert await publish(redis, chat, number) == 1
    for follower, number in zip(followers, [*range(1, 51)] * 3, strict=True):
        assert await received(follower, number) == [number]


async def test_a_follower_hears_of_its_chat_only(redis: Redis, hub: Hub) -> None:
    mine, other = await hub.subscribe(CHAT), await hub.subscribe(uuid4())
    await publish(redis, other.chat_id, 1)
    await publish(redis, CHAT, 2)
    assert await received(mine, 2) == [2]
    assert await received(other, 1) == [1]


async def test_nobody_listens_for_a_chat_without_followers(redis: Redis, hub: Hub) -> None:
    first, second = await hub.subscribe(CHAT), await hub.subscribe(CHAT)
    hub.unsubscribe(first)
    assert await publish(redis, CHAT, 1) == 1
    hub.unsubscribe(second)
    hub.unsubscribe(second)  # once more is harmless

    async def unheard() -> bool:
        return await publish(redis, CHAT, 2) == 0

    await until(unheard)
    assert hub.followers == 0


async def test_coming_back_at_once_is_heard(redis: Redis, hub: Hub) -> None:
    subscription = await hub.subscribe(CHAT)
    for version in range(1, 30):
        hub.unsubscribe(subscription)
        # At once, and after Redis has been told that nobody listens.
        telling = hub.listener.tell_again() if version % 2 else asyncio.sleep(0)
        _, subscription = await asyncio.gather(telling, hub.subscribe(CHAT))
        await publish(redis, CHAT, version)
        assert version in await received(subscription, version)


async def test_a_subscriber_that_is_cancelled_is_forgotten(hub: Hub) -> None:
    coming = asyncio.create_task(hub.subscribe(CHAT))
    await asyncio.sleep(0)
    assert hub.followers == 1
    coming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await coming
    assert hub.followers == 0


async def test_what_cannot_be_read_is_passed_over(redis: Redis, hub: Hub) -> None:
    subscription = await hub.subscribe(CHAT)
    await cast(Any, redis).publish(channel(CHAT), b"of another release")
    await publish(redis, CHAT, 1)
    assert await received(subscription, 1) == [1]
    await cast(Any, redis).xadd(preview_key(CHAT), {"e": b"of another release"})
    assert await hub.preview(CHAT) == []


# --- Redis is not


async def test_followers_hear_again_after_redis_was_restarted(
    valkey: Valkey, redis: Redis, hub: Hub
) -> None:
    chats = [uuid4() for _ in range(20)]
    followers = [await hub.subscribe(chat) for chat in chats]
    valkey.kill()
    await valkey.restart()
    for follower in followers:

        async def heard(chat: UUID = follower.chat_id) -> bool:
            return await publish(redis, chat, 7) == 1

        await until(heard)
        assert 7 in await received(follower, 7)
    assert await clients(redis) == 1


async def test_a_chat_first_followed_while_redis_is_away_is_heard_later(
    valkey: Valkey, redis: Redis, hub: Hub, versions: Versions
) -> None:
    before, left, later = await hub.subscribe(CHAT), await hub.subscribe(uuid4()), uuid4()
    valkey.kill()
    try:
        versions.known[later] = 3
        meanwhile = await hub.subscribe(later)
        hub.unsubscribe(left)
        assert await hub.preview(CHAT) == []
        await soon(lambda: meanwhile.version == 3)  # the database carries it
    finally:
        await valkey.restart()
    for follower in (before, meanwhile):

        async def heard(chat: UUID = follower.chat_id) -> bool:
            return await publish(redis, chat, 9) == 1

        await until(heard)
        assert 9 in await received(follower, 9)
    await until(lambda: _unheard(redis, left.chat_id))


async def _unheard(redis: Redis, chat_id: UUID) -> bool:
    return await publish(redis, chat_id, 9) == 0


async def test_a_connection_that_died_without_a_word_is_made_anew(
    valkey: Valkey, redis: Redis, versions: Versions
) -> None:
    async with relay_to(valkey.url) as (relay, url):
        far = Redis.from_url(url)
        hub = Hub(far, versions, poll_s=3600, listener=Listener(far, silence_s=0.05))
        hub.start()
        subscription = await hub.subscribe(CHAT)
        await publish(redis, CHAT, 1)
        assert await received(subscription, 1) == [1]
        relay.go_silent()

        async def heard() -> bool:
            await publish(redis, CHAT, 2)
            return bool(await subscription.wait(0.05))

        await until(heard)
        await hub.close()
        await far.aclose()


async def test_a_quiet_connection_is_kept(redis: Redis, versions: Versions) -> None:
    hub = Hub(redis, versions, poll_s=3600, listener=Listener(redis, silence_s=0.005))
    hub.start()
    await hub.subscribe(CHAT)
    first = await client_ids(redis)

    async def asked_often() -> bool:
        return (await pings(redis)) > 5

    await until(asked_often)
    assert await client_ids(redis) == first
    await hub.close()


async def client_ids(redis: Redis) -> list[bytes]:
    found = await cast(Any, redis).execute_command("CLIENT", "LIST", "TYPE", "pubsub")
    return [line.split()[0] for line in found.splitlines()]


async def pings(redis: Redis) -> int:
    found = await cast(Any, redis).info("commandstats")
    return found.get("cmdstat_ping", {}).get("calls", 0)


# --- the database


async def test_a_lost_hint_is_healed_by_the_version_check(hub: Hub, versions: Versions) -> None:
    subscription = await hub.subscribe(CHAT)
    versions.known[CHAT] = 5
    while subscription.version < 5:
        assert await subscription.wait(10) == []
    versions.known[CHAT] = 4  # an older answer changes nothing
    asked = versions.asked
    await soon(lambda: versions.asked > asked + 1)
    assert subscription.version == 5


async def test_a_chat_that_is_gone_wakes_its_followers(hub: Hub, versions: Versions) -> None:
    subscription = await hub.subscribe(CHAT)
    assert await subscription.wait(10) == []
    assert subscription.version == GONE


async def test_the_version_check_survives_a_database_that_is_away(
    hub: Hub, versions: Versions
) -> None:
    versions.broken = True
    subscription = await hub.subscribe(CHAT)
    await soon(lambda: versions.asked > 2)
    assert subscription.version == 0
    versions.known[CHAT], versions.broken = 1, False
    await soon(lambda: subscription.version == 1)


# --- readers


async def test_entries_come_in_order_and_together(redis: Redis, hub: Hub) -> None:
    subscription = await hub.subscribe(CHAT)
    for version in range(1, 100):
        await publish(redis, CHAT, version)
    assert await received(subscription, 99) == list(range(1, 100))


@pytest.mark.parametrize(
    ("entries", "size"), [(MAX_WAITING, 1), (16, MAX_WAITING_BYTES // 16)], ids=["many", "big"]
)
async def test_a_reader_that_is_too_slow_is_told_so(entries: int, size: int) -> None:
    subscription = Subscription(CHAT)
    for _ in range(entries):
        subscription.put(hint(1), size)
    assert not subscription.overrun
    subscription.put(hint(1), size)
    assert subscription.overrun
    assert len(await subscription.wait(0)) == entries


async def test_a_reader_that_keeps_up_is_never_dropped() -> None:
    subscription = Subscription(CHAT)
    for _ in range(3 * MAX_WAITING):
        subscription.put(hint(1), 1)
        assert len(await subscription.wait(0)) == 1
    assert not subscription.overrun


async def test_draining_ends_every_stream_and_those_to_come(hub: Hub) -> None:
    subscription = await hub.subscribe(CHAT)
    waiting = asyncio.create_task(subscription.wait(60))
    hub.drain()
    assert await waiting == []
    assert subscription.closing
    assert (await hub.subscribe(CHAT)).closing
