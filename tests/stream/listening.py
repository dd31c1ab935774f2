"""Following one channel by hand, and claims to publish under."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID

import orjson
from redis.asyncio import Redis

from chatd.core.work import Claim
from chatd.stream.entry import Entry, channel, preview_key, unpack

CHAT, TURN, NOBODY = UUID(int=1), UUID(int=2), UUID(int=3)


def make_claim(*, version: int = 2, attempt: int = 1, commits: int = 0) -> Claim:
    return Claim(TURN, CHAT, NOBODY, NOBODY, attempt, commits, version, 0.0)


class Channel:
    """What is published for one chat, in order."""

    def __init__(self, pubsub: Any) -> None:
        self._pubsub = pubsub

    async def entry(self) -> Entry:
        """The next one, waited for."""
        while True:
            message = await self._pubsub.get_message(timeout=10)
            assert message is not None, "nothing was published"
            if message["type"] == "message":
                return unpack(message["data"])


@asynccontextmanager
async def listening(redis: Redis, chat_id: UUID = CHAT) -> AsyncGenerator[Channel]:
    pubsub = cast(Any, redis.pubsub())
    await pubsub.subscribe(channel(chat_id))
    assert (await pubsub.get_message(timeout=10))["type"] == "subscribe"
    yield Channel(pubsub)
    await pubsub.aclose()


def data(entry: Entry) -> list[dict[str, Any]]:
    """The events' JSON."""
    return [orjson.loads(event) for _, event in entry.events]


def texts(entry: Entry) -> list[str]:
    return [event["part"]["text"] for event in data(entry)]


async def kept(redis: Redis) -> list[Entry]:
    """The preview as a reader who comes now gets it."""
    rows = await cast(Any, redis).xrange(preview_key(CHAT))
    return [unpack(fields[b"e"]) for _, fields in rows]
