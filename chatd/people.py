"""What suspending, reactivating and erasing a user does beyond their own row, to chats and streams.

Callers have committed the user's row before: tokens are refused from there on. Everything here may
be repeated, and picks up what a crash has left.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

from chatd.queue import SEND_TIMEOUT_S, Stops, Wakes
from chatd.store.db import Database
from chatd.store.erasing import delete_chats, erase_user
from chatd.store.family import Changed
from chatd.store.suspending import end_work, resume_queues
from chatd.stream.publisher import Publisher

REVOKED = "chatd:revoked"
"""Ids of users whose streams must look at their tokens again, for every API process."""


class People:
    def __init__(
        self, db: Database, redis: Redis, wakes: Wakes, publisher: Publisher, stops: Stops
    ) -> None:
        self._db = db
        self._redis = redis
        self._wakes = wakes
        self._publisher = publisher
        self._stops = stops

    async def revoked(self, user_id: UUID) -> None:
        """Their streams look at their tokens at once. One that hears nothing does so in seconds."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await cast(Any, self._redis).publish(REVOKED, str(user_id))
        except (RedisError, OSError, TimeoutError):
            return

    async def stop(self, user_id: UUID) -> None:
        """Of a suspended user: streams close, turns stop, queues are cancelled."""
        await self.revoked(user_id)
        await self._tell(user_id, end_work(self._db, user_id))

    async def resume(self, user_id: UUID) -> None:
        """Of one who is suspended no more."""
        await self._tell(user_id, resume_queues(self._db, user_id))

    async def erase(self, user_id: UUID) -> None:
        """Of a suspended user: everything of theirs goes, at last their row."""
        await self.revoked(user_id)
        await self._tell(user_id, delete_chats(self._db, user_id))
        await erase_user(self._db, user_id)

    async def _tell(self, user_id: UUID, work: AsyncGenerator[Changed]) -> None:
        """As each transaction commits: the last of ten thousand chats may take a while."""
        try:
            async with aclosing(work):
                async for changed in work:
                    self._stops.push(changed.stops)
                    for chat_id, version in changed.versions.items():
                        self._publisher.announce(chat_id, version, owner_id=user_id)
        finally:
            self._wakes.wake()  # a claim passes over a chat that was locked
