"""Watching: what is told, once each, whatever happens to hints, Redis and the database."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast
from uuid import UUID, uuid4

import orjson
import pytest
from redis.asyncio import Redis

from chatd.core.errors import Unavailable
from chatd.core.watching import Look, Sighting
from chatd.dev.valkey import Valkey
from chatd.stream.entry import owner_channel
from chatd.stream.listener import Listener
from chatd.stream.mailbox import MAX_WAITING
from chatd.stream.watchers import Watcher, Watchers
from tests.waiting import soon

OWNER = UUID(int=7)
CHAT = UUID(int=1)


class World:
    """The database's answers: what a test says they are."""

    def __init__(self) -> None:
        self.looks: dict[UUID, Look] = {}
        self.away = False
        self.reads = 0
        self.rounds = 0
        self.blind: set[UUID] = set()
        """Chats that the round of what changed lately does not find by itself."""

    def have(self, chat_id: UUID, **changes: Any) -> None:
        new = Look(chat_id, OWNER, 0, True, "t", "waiting", None, frozenset())
        look = self.looks.get(chat_id, new)
        self.looks[chat_id] = replace(look, version=look.version + 1, **changes)

    async def owners(self, owner_ids: Sequence[UUID]) -> list[Look]:
        self._check()
        return [look for look in self.looks.values() if look.owner_id in owner_ids]

    async def chats(self, chat_ids: Sequence[UUID]) -> Mapping[UUID, Sighting]:
        self._check()
        self.reads += 1
        return {
            id: Sighting(look, {"id": str(id), "title": look.title}, [])
            for id, look in self.looks.items()
            if id in chat_ids
        }

    async def changed(
        self, owner_ids: Sequence[UUID], chat_ids: Sequence[UUID], within_s: float
    ) -> Mapping[UUID, tuple[UUID, int]]:
        self._check()
        self.rounds += 1
        return {
            id: (look.owner_id, look.version)
            for id, look in self.looks.items()
            if id in chat_ids or (look.owner_id in owner_ids and id not in self.blind)
        }

    def _check(self) -> None:
        if self.away:
            raise Unavailable


@pytest.fixture
def world() -> World:
    return World()


async def started(redis: Redis, world: World, poll_s: float) -> AsyncGenerator[Watchers]:
    listener = Listener(redis)
    watchers = Watchers(listener, world, poll_s=poll_s)
    listener.start()
    watchers.start()
    yield watchers
    await watchers.close()
    await listener.close()


@pytest.fixture
async def watchers(redis: Redis, world: World) -> AsyncGenerator[Watchers]:
    """No round helps: only hints."""
    async for made in started(redis, world, 3600):
        yield made


@pytest.fixture
async def rounds(redis: Redis, world: World) -> AsyncGenerator[Watchers]:
    """Rounds, as fast as they come."""
    async for made in started(redis, world, 0.01):
        yield made


async def hint(redis: Redis, chat_id: UUID = CHAT) -> None:
    await cast(Any, redis).publish(owner_channel(OWNER), str(chat_id))


async def told(watcher: Watcher, count: int) -> list[str]:
    """The kinds of the next news."""
    found: list[str] = []
    while len(found) < count:
        letters = await watcher.wait(20)
        assert letters or not found, "nothing came"
        for kind, payload in letters:
            assert orjson.loads(payload)["kind"] == kind
            found.append(kind)
    return found


# --- hints


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"status": "running"}, "status_change"),
        ({"ended": UUID(int=9)}, "status_change"),
        ({"title": "new"}, "title_change"),
        ({"asks": frozenset({"a"})}, "action_required"),
        ({"visible": False}, "deleted"),
    ],
)
async def test_what_changed_is_told(
    redis: Redis, world: World, watchers: Watchers, change: dict[str, Any], kind: str
) -> None:
    world.have(CHAT)
    watcher = await watchers.watch(OWNER)
    world.have(CHAT, **change)
    await hint(redis)
    assert await told(watcher, 1) == [kind]


async def test_a_new_chat_and_one_that_comes_back_are_created(
    redis: Redis, world: World, watchers: Watchers
) -> None:
    old = uuid4()
    world.have(old, visible=False)
    watcher = await watchers.watch(OWNER)
    world.have(CHAT)
    await hint(redis)
    assert await told(watcher, 1) == ["created"]
    world.have(old, visible=True)
    await hint(redis, old)
    assert await told(watcher, 1) == ["created"]


async def test_what_was_told_is_not_told_again(
    redis: Redis, world: World, watchers: Watchers
) -> None:
    world.have(CHAT)
    watcher = await watchers.watch(OWNER)
    world.have(CHAT, title="a")
    for _ in range(5):
        await hint(redis)
    assert await told(watcher, 1) == ["title_change"]
    world.have(CHAT, status="running", asks=frozenset({"x"}))
    await hint(redis)
    assert await told(watcher, 2) == ["status_change", "action_required"]


async def test_many_watchers_cost_one_read_and_one_channel(
    redis: Redis, world: World, watchers: Watchers
) -> None:
    world.have(CHAT)
    several = [await watchers.watch(OWNER) for _ in range(100)]
    assert watchers.count == 100
    world.have(CHAT, title="a")
    await hint(redis)
    for watcher in several:
        assert await told(watcher, 1) == ["title_change"]
    assert world.reads == 1
    for watcher in several:
        watchers.leave(watcher)
    assert watchers.count == 0


async def test_a_chat_whose_rows_are_gone_is_deleted(
    redis: Redis, world: World, watchers: Watchers
) -> None:
    world.have(CHAT)
    watcher = await watchers.watch(OWNER)
    del world.looks[CHAT]
    await hint(redis)
    assert await told(watcher, 1) == ["deleted"]


async def test_hints_of_another_release_are_passed_over(
    redis: Redis, world: World, watchers: Watchers
) -> None:
    watcher = await watchers.watch(OWNER)
    await cast(Any, redis).publish(owner_channel(OWNER), b"\xff")
    world.have(CHAT)
    await hint(redis)
    assert await told(watcher, 1) == ["created"]


# --- without them


async def test_a_lost_hint_is_found_by_the_next_round(world: World, rounds: Watchers) -> None:
    watcher = await rounds.watch(OWNER)
    world.have(CHAT)
    assert await told(watcher, 1) == ["created"]
    world.have(CHAT, status="running")
    assert await told(watcher, 1) == ["status_change"]
    world.blind.add(CHAT)  # a claim moves no time stamp: what is active is asked for by id
    world.have(CHAT, status="waiting")
    assert await told(watcher, 1) == ["status_change"]


async def test_without_redis_every_change_is_still_told(
    valkey: Valkey, world: World, rounds: Watchers
) -> None:
    before = await rounds.watch(OWNER)
    valkey.kill()
    try:
        meanwhile = await rounds.watch(OWNER)
        world.have(CHAT)
        for watcher in (before, meanwhile):
            assert await told(watcher, 1) == ["created"]
    finally:
        await valkey.restart()


async def test_a_hint_while_the_database_is_away_is_kept(
    redis: Redis, world: World, watchers: Watchers
) -> None:
    watcher = await watchers.watch(OWNER)
    world.have(CHAT)
    world.away = True
    await hint(redis)
    assert await watcher.wait(0.05) == []
    world.away = False
    assert await told(watcher, 1) == ["created"]


async def test_nobody_watches_while_the_database_is_away(world: World, watchers: Watchers) -> None:
    world.away = True
    with pytest.raises(Unavailable):
        await watchers.watch(OWNER)
    assert watchers.count == 0
    world.away = False
    await watchers.watch(OWNER)


# --- readers


async def test_a_slow_watcher_is_dropped_and_the_others_are_not(
    redis: Redis, world: World, watchers: Watchers
) -> None:
    world.have(CHAT)
    slow, quick = await watchers.watch(OWNER), await watchers.watch(OWNER)
    for number in range(MAX_WAITING + 1):
        world.have(CHAT, title=str(number))
        await hint(redis)
        assert await told(quick, 1) == ["title_change"]
    await soon(lambda: slow.overrun)
    assert not quick.overrun


async def test_draining_closes_every_watch_and_those_to_come(watchers: Watchers) -> None:
    watcher = await watchers.watch(OWNER)
    watchers.drain()
    assert watcher.closing
    assert (await watchers.watch(OWNER)).closing
