"""Redis is emptied, dies and comes back: it costs previews and a moment, and nothing else."""

from collections.abc import AsyncGenerator

import pytest
from redis import asyncio as redis

from chatd.dev.valkey import Valkey
from tests.e2e.client import Client, call, message, spoken
from tests.e2e.fleet import Fleet, Process
from tests.e2e.view import View, text_of


@pytest.fixture
async def valkey_server(fleet: Fleet) -> AsyncGenerator[Valkey]:
    """The fleet's; it runs again afterwards."""
    server = fleet.stack.valkey
    assert server is not None
    yield server
    if not server.running:
        await server.restart()


async def test_a_flush_in_the_middle_of_a_turn_loses_nothing(
    worker: Process, valkey_server: Valkey, member: Client
) -> None:
    posted = await member.create(call("demo__slow", seconds=1), "/long 100 20")
    queued = await member.say(posted.chat_id, "/say the queue is still there")
    async with member.watching(posted.chat_id) as watch:
        await _flush(valkey_server)
        await watch.until(lambda view: view.preview.startswith("word1 word2 "))
        await _flush(valkey_server)
        screen = await watch.over(queued.turn_id)
        assert screen == await member.screen(posted.chat_id)
    assert text_of((await member.messages(posted))[-1]) == spoken(100)
    assert text_of((await member.messages(queued))[-1]) == "the queue is still there"
    assert (await member.turn(posted))["attempt"] == 1


async def test_redis_may_die_and_come_back_in_the_middle_of_a_turn(
    worker: Process, valkey_server: Valkey, member: Client
) -> None:
    posted = await member.create("/long 150 20")
    async with member.watching(posted.chat_id) as watch:
        await watch.until(lambda view: view.preview.startswith("word1 word2 "))
        valkey_server.kill()
        await valkey_server.restart()
        assert await watch.over(posted.turn_id) == await member.screen(posted.chat_id)
        await _previews_are_back(member, posted.chat_id)
    assert text_of((await member.messages(posted))[-1]) == spoken(150)


async def test_without_redis_messages_are_taken_and_answered(
    worker: Process, valkey_server: Valkey, fleet: Fleet, member: Client
) -> None:
    """Workers claim by themselves, and streams answer from the database."""
    valkey_server.kill()
    posted = await member.create(call("demo__add", a=2, b=3), "/say without redis")
    async with member.watching(posted.chat_id) as watch:
        assert await watch.over(posted.turn_id) == await member.screen(posted.chat_id)
        again = await member.say(posted.chat_id, "/say once more")
        assert await watch.over(again.turn_id) == await member.screen(posted.chat_id)
    view = View()
    path = f"/chats/{posted.chat_id}/messages"
    async with member.streamed(path, message("/say streamed")) as events:
        async for event in events:
            if event.name != "turn":
                view.take(event)
    assert view.status == "waiting"
    assert [text_of(answer) for answer in view.messages.values()] == ["streamed"]

    await valkey_server.restart()
    await _previews_are_back(member, posted.chat_id)
    assert worker.child.running
    assert fleet.apis[0].child.running


async def _flush(server: Valkey) -> None:
    async with redis.Redis.from_url(server.url) as client:
        await client.flushall()


async def _previews_are_back(member: Client, chat_id: str) -> None:
    """The processes that were there before talk to each other again."""
    async with member.watching(chat_id) as watch:
        while not watch.view.longest:
            posted = await member.say(chat_id, "/long 20 20")
            await watch.over(posted.turn_id)
