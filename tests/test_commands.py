"""What a user does to a chat: committed first, then told to workers and readers."""

from collections.abc import AsyncGenerator
from typing import Any, cast
from uuid import UUID

import pytest
from redis.asyncio import Redis

from chatd.commands import Commands
from chatd.core.chats import ChatPatch, NewChat, NewTurn, Once
from chatd.core.errors import BadRequest, NotFound
from chatd.dev.valkey import Valkey
from chatd.queue import STOPS, WAKE_LIST, Stops, Wakes, stopped_turns
from chatd.store import work
from chatd.store.chats import get_chat
from chatd.store.ids import new_id
from chatd.stream.publisher import Publisher
from tests.seed import Seed, make_user, said
from tests.stream.listening import Channel, listening

HELLO = NewTurn(said("hello"))
ONCE = Once("/chats", "key", b"x" * 32)


class Office:
    """Commands with the senders they use; `wakes()` sends all and counts those since the last."""

    def __init__(self, seed: Seed, redis: Redis) -> None:
        self._redis = redis
        self.seed = seed
        self._wakes = Wakes(redis)
        self.publisher = Publisher(redis)
        self.stops = Stops(redis)
        self.commands = Commands(seed.db, self._wakes, self.publisher, self.stops)

    async def create(self, once: Once | None = None) -> Any:
        new = NewChat(HELLO)
        return await self.commands.create_chat(self.seed.actor, new, once, chat_id=new_id())

    async def send(self, chat_id: UUID, once: Once | None = None) -> Any:
        return await self.commands.send_message(self.seed.actor, chat_id, HELLO, once)

    async def wakes(self) -> int:
        self._wakes.start()
        await self._wakes.close()
        self._wakes = Wakes(self._redis)
        self.commands = Commands(self.seed.db, self._wakes, self.publisher, self.stops)
        sent = await cast(Any, self._redis).llen(WAKE_LIST)
        await cast(Any, self._redis).delete(WAKE_LIST)
        return sent


@pytest.fixture
async def office(seed: Seed, redis: Redis) -> AsyncGenerator[Office]:
    made = Office(seed, redis)
    made.publisher.start()
    yield made
    await made.publisher.close()


async def test_a_new_chat_is_answered_with_its_turn_and_wakes_a_worker(office: Office) -> None:
    created = await office.create()
    chat = await get_chat(office.seed.db, office.seed.actor.user_id, created.chat_id)
    assert {**created.body, "turn": None} == {**chat, "turn": None}
    assert created.body["turn"]["id"] == str(created.turn_id)
    assert (created.version, created.created) == (1, True)
    assert await office.wakes() == 1


async def test_a_message_is_answered_with_where_it_went(office: Office, redis: Redis) -> None:
    chat_id = (await office.create()).chat_id
    await office.wakes()
    async with listening(redis, chat_id) as channel:
        queued = await office.send(chat_id)
        assert (queued.body["queued"], queued.body["message"]) == (True, None)
        await announced(channel, 2)
    claim = await office.seed.claim()
    await work.finish_turn(office.seed.db, claim, [], "completed", None, [], None)
    claim = await office.seed.claim()
    await work.finish_turn(office.seed.db, claim, [], "completed", None, [], None)
    sent = await office.send(chat_id)
    assert (sent.body["queued"], sent.body["message"]["content"]) == (False, said("hello"))


async def test_a_queued_message_wakes_too(office: Office) -> None:
    """While it held the chat's lock, a claim may have passed over the turn before it."""
    chat_id = (await office.create()).chat_id
    await office.wakes()
    await office.send(chat_id)
    assert await office.wakes() == 1


async def test_a_refused_message_wakes_too(office: Office) -> None:
    """While it held the chat's lock, a claim may have passed over the turn that is pending."""
    chat_id = (await office.create()).chat_id
    await office.wakes()
    bad = NewTurn(said("x"), model_config_id=new_id())
    with pytest.raises(BadRequest):
        await office.commands.send_message(office.seed.actor, chat_id, bad)
    assert await office.wakes() == 1
    with pytest.raises(NotFound):
        await office.commands.promote_queued(office.seed.actor, chat_id, new_id())
    assert await office.wakes() == 1


async def test_a_stop_is_told_to_workers_and_readers(office: Office, redis: Redis) -> None:
    chat_id = (await office.create()).chat_id
    claim = await office.seed.claim()
    pubsub = cast(Any, redis.pubsub())
    await pubsub.subscribe(STOPS)
    assert (await pubsub.get_message(timeout=10))["type"] == "subscribe"
    office.stops.start()
    async with listening(redis, chat_id) as channel:
        await office.commands.interrupt(office.seed.actor, chat_id)
        await announced(channel, 3)
    assert stopped_turns((await pubsub.get_message(timeout=10))["data"]) == {claim.turn_id}
    await office.stops.close()
    await pubsub.aclose()


async def test_a_repeated_request_wakes_nobody(office: Office) -> None:
    first = await office.create(ONCE)
    await office.wakes()
    again = await office.create(ONCE)
    assert (again.turn_id, again.created, again.version) == (first.turn_id, False, 0)
    assert again.body == first.body
    assert await office.wakes() == 0


async def test_a_refused_request_tells_nobody(office: Office) -> None:
    bad = NewTurn(said("x"), model_config_id=new_id())
    with pytest.raises(BadRequest):
        await office.commands.create_chat(office.seed.actor, NewChat(bad), chat_id=new_id())
    assert await office.wakes() == 0


async def test_archiving_and_deleting_are_announced(office: Office, redis: Redis) -> None:
    chat_id = (await office.create()).chat_id
    actor = office.seed.actor
    async with listening(redis, chat_id) as channel:
        await office.commands.patch_chat(actor, chat_id, ChatPatch(archived=True))
        await announced(channel, 2)
        await office.commands.patch_chat(actor, chat_id, ChatPatch(archived=False))
        await announced(channel, 3)
        await office.commands.delete_chat(actor, chat_id)
        await announced(channel, 4)
    assert await office.wakes() == 4


async def announced(channel: Channel, version: int) -> None:
    """The next that is announced, after what came before we listened."""
    entry = await channel.entry()
    while entry.version == 1:
        entry = await channel.entry()
    assert entry.version == version


async def test_other_peoples_chats_are_not_found(office: Office) -> None:
    chat_id = (await office.create()).chat_id
    eve = await make_user(office.seed.db, "eve")
    for act in (
        office.commands.send_message(eve, chat_id, HELLO),
        office.commands.patch_chat(eve, chat_id, ChatPatch(archived=True)),
        office.commands.delete_chat(eve, chat_id),
    ):
        with pytest.raises(NotFound):
            await act


async def test_posting_needs_no_redis(office: Office, valkey: Valkey) -> None:
    valkey.kill()
    try:
        created = await office.create()
        assert (await office.send(created.chat_id)).body["queued"] is True
        await office.commands.patch_chat(
            office.seed.actor, created.chat_id, ChatPatch(title="still here")
        )
    finally:
        await valkey.restart()
