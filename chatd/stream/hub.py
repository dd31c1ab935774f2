"""Following: all followed chats of a process on one listener, and a version check behind it.

Redis only hints. What a follower must not miss, it reads from PostgreSQL when a version says so.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast
from uuid import UUID

from redis.asyncio import Redis

from chatd.core.errors import Unavailable
from chatd.stream.entry import Entry, channel, preview_key, unpack
from chatd.stream.listener import AWAY, SUBSCRIBE_TIMEOUT_S, Listener
from chatd.stream.mailbox import Mailbox

POLL_S = 2.0
"""How often the versions of all followed chats are compared with the database's."""

log = logging.getLogger(__name__)

Versions = Callable[[Sequence[UUID]], Awaitable[Mapping[UUID, int]]]


class Subscription(Mailbox[Entry]):
    """One follower's entries."""

    def __init__(self, chat_id: UUID) -> None:
        super().__init__()
        self.chat_id = chat_id
        self.version = 0
        """The newest version the database is known to have."""

    def at(self, version: int) -> None:
        """The database is at this version; a follower that is not reads the rows."""
        if version > self.version:
            self.version = version
            self.nudge()


class Hub:
    """All subscriptions of a process. Works without Redis, two seconds slower."""

    def __init__(
        self,
        redis: Redis,
        versions: Versions,
        poll_s: float = POLL_S,
        listener: Listener | None = None,
    ) -> None:
        self._redis = redis
        self._versions = versions
        self._poll_s = poll_s
        self.listener = listener or Listener(redis)
        self._followed: dict[UUID, set[Subscription]] = {}
        self._poller: asyncio.Task[None] | None = None
        self.closing = False

    def start(self) -> None:
        self.listener.start()
        self._poller = asyncio.create_task(self._poll(), name="hub-poll")

    def drain(self) -> None:
        """End every stream: the process is going away, readers come back elsewhere."""
        self.closing = True
        for subscriptions in self._followed.values():
            for subscription in subscriptions:
                subscription.close()

    async def close(self) -> None:
        self.drain()
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
        await self.listener.close()

    @property
    def waiting_bytes(self) -> int:
        """What readers have not taken yet."""
        return sum(each.size for several in self._followed.values() for each in several)

    @property
    def followers(self) -> int:
        return sum(len(subscriptions) for subscriptions in self._followed.values())

    async def subscribe(self, chat_id: UUID) -> Subscription:
        """From the return on, nothing published for the chat is missed (while Redis is there)."""
        subscription = Subscription(chat_id)
        if self.closing:
            subscription.close()
        self._followed.setdefault(chat_id, set()).add(subscription)
        try:
            await self.listener.listen(channel(chat_id).encode(), partial(self._put, chat_id))
        except BaseException:
            self.unsubscribe(subscription)
            raise
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        others = self._followed.get(subscription.chat_id)
        if others is None or subscription not in others:
            return
        others.discard(subscription)
        if not others:
            del self._followed[subscription.chat_id]
            self.listener.ignore(channel(subscription.chat_id).encode())

    async def preview(self, chat_id: UUID) -> list[Entry]:
        """The running step's preview so far, or nothing when Redis is away or has lost it."""
        try:
            async with asyncio.timeout(SUBSCRIBE_TIMEOUT_S):
                redis = cast(Any, self._redis)
                found = await redis.xrange(preview_key(chat_id))
            return [unpack(fields[b"e"]) for _, fields in found]
        except (*AWAY, ValueError):
            return []

    def _put(self, chat_id: UUID, payload: bytes) -> None:
        try:
            entry = unpack(payload)
        except ValueError:
            return  # of a release that packs otherwise: the version check carries it
        for subscription in self._followed.get(chat_id, ()):
            subscription.put(entry, len(payload))

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self.listener.tell_again()
                await self._compare()
            except Unavailable:
                pass  # the next round will tell
            except Exception:
                log.exception("comparing versions failed")

    async def _compare(self) -> None:
        """Tell every follower what version its chat has by now."""
        followed = list(self._followed)
        if not followed:
            return
        versions = await self._versions(followed)
        for chat_id in followed:
            for subscription in self._followed.get(chat_id, ()):
                subscription.at(versions.get(chat_id, GONE))


GONE = 2**62
"""The version of a chat that is no longer there: whoever reads the rows finds out."""
