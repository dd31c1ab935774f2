"""Following: one Redis connection per process for all followed chats, and a version check.

Redis only hints. What a follower must not miss, it reads from PostgreSQL when a version says so.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, cast
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

from chatd.core.errors import Unavailable
from chatd.stream.entry import Entry, channel, preview_key, unpack

POLL_S = 2.0
"""How often the versions of all followed chats are compared with the database's."""

RECONNECT_S = 0.5
CONNECT_TIMEOUT_S = 5.0
SUBSCRIBE_TIMEOUT_S = 1.0
MAX_WAITING = 2_000
"""Entries a reader may be behind; a slower one is dropped, never waited for."""

MAX_WAITING_BYTES = 16 * 2**20

AWAY = (RedisError, OSError, TimeoutError)

log = logging.getLogger(__name__)

Versions = Callable[[Sequence[UUID]], Awaitable[Mapping[UUID, int]]]


class Subscription:
    """One follower's queue of entries."""

    def __init__(self, chat_id: UUID) -> None:
        self.chat_id = chat_id
        self._waiting: deque[Entry] = deque()
        self.size = 0
        self._some = asyncio.Event()
        self.overrun = False
        """The reader was too slow: entries are missing, close it."""
        self.closing = False
        """The process is going away."""
        self.version = 0
        """The newest version the database is known to have."""

    def put(self, entry: Entry, size: int) -> None:
        self.size += size
        if len(self._waiting) >= MAX_WAITING or self.size > MAX_WAITING_BYTES:
            self.overrun = True
        else:
            self._waiting.append(entry)
        self._some.set()

    def nudge(self, version: int) -> None:
        """The database is at this version; a follower that is not reads the rows."""
        if version > self.version:
            self.version = version
            self._some.set()

    def close(self) -> None:
        self.closing = True
        self._some.set()

    async def wait(self, timeout_s: float) -> list[Entry]:
        """The entries that came since; empty after `timeout_s` or on a nudge."""
        if not self._some.is_set():
            # A timer that only sets the event: asyncio.timeout costs more than what it waits for.
            timer = asyncio.get_running_loop().call_later(timeout_s, self._some.set)
            try:
                await self._some.wait()
            finally:
                timer.cancel()
        self._some.clear()
        entries = list(self._waiting)
        self._waiting.clear()
        self.size = 0
        return entries


class Hub:
    """All subscriptions of a process. Works without Redis, two seconds slower."""

    def __init__(self, redis: Redis, versions: Versions, poll_s: float = POLL_S) -> None:
        self._redis = redis
        self._versions = versions
        self._poll_s = poll_s
        self._pubsub: Any = redis.pubsub()
        self._followed: dict[UUID, set[Subscription]] = {}
        self._channels: dict[bytes, UUID] = {}
        self._confirmed: dict[bytes, asyncio.Event] = {}
        self._telling = asyncio.Lock()
        self._lost = False
        self._tasks: list[asyncio.Task[None]] = []
        self.closing = False

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._listen(), name="hub-listen"),
            asyncio.create_task(self._poll(), name="hub-poll"),
        ]

    def drain(self) -> None:
        """End every stream: the process is going away, readers come back elsewhere."""
        self.closing = True
        for subscriptions in self._followed.values():
            for subscription in subscriptions:
                subscription.close()

    async def close(self) -> None:
        self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pubsub.aclose()

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
            await self._confirm(chat_id)
        except BaseException:
            await self.unsubscribe(subscription)
            raise
        return subscription

    async def _confirm(self, chat_id: UUID) -> None:
        """Wait until Redis sends what is published; while it is away, the version check does."""
        name = channel(chat_id).encode()
        confirmed = self._confirmed.get(name)
        if confirmed is None:
            confirmed = self._confirmed[name] = asyncio.Event()
            self._channels[name] = chat_id
            await self._tell(name)
        if not confirmed.is_set() and not self._lost:
            try:
                async with asyncio.timeout(SUBSCRIBE_TIMEOUT_S):
                    await confirmed.wait()
            except TimeoutError:
                self._lost = True

    async def unsubscribe(self, subscription: Subscription) -> None:
        others = self._followed.get(subscription.chat_id)
        if others is None or subscription not in others:
            return
        others.discard(subscription)
        if not others:
            del self._followed[subscription.chat_id]
            name = channel(subscription.chat_id).encode()
            self._channels.pop(name, None)
            self._confirmed.pop(name, None)
            await self._tell(name)

    async def preview(self, chat_id: UUID) -> list[Entry]:
        """The running step's preview so far, or nothing when Redis is away or has lost it."""
        try:
            async with asyncio.timeout(SUBSCRIBE_TIMEOUT_S):
                redis = cast(Any, self._redis)
                found = await redis.xrange(preview_key(chat_id))
            return [unpack(fields[b"e"]) for _, fields in found]
        except (*AWAY, ValueError):
            return []

    async def _tell(self, name: bytes) -> bool:
        """Subscribe or unsubscribe, whichever is wanted by now; false when Redis is away."""
        try:
            async with asyncio.timeout(SUBSCRIBE_TIMEOUT_S), self._telling:
                wanted = name in self._channels
                await (self._pubsub.subscribe if wanted else self._pubsub.unsubscribe)(name)
        except AWAY:
            self._lost = True
            return False
        return True

    async def _tell_again(self) -> None:
        """Tell Redis what it could not be told when it was away."""
        told = self._pubsub.channels.keys() - self._pubsub.pending_unsubscribe_channels
        for name in told ^ self._channels.keys():
            if not await self._tell(name):
                return

    async def _listen(self) -> None:
        while True:
            try:
                await self._connect()
                message = await self._pubsub.get_message(timeout=None)
            except AWAY:
                self._lost = True
                for confirmed in self._confirmed.values():
                    confirmed.clear()
                await asyncio.sleep(RECONNECT_S)
                continue
            except Exception:
                log.exception("listening failed")  # the version check carries the streams
                await asyncio.sleep(RECONNECT_S)
                continue
            if message is not None:
                self._take(message)

    async def _connect(self) -> None:
        """redis-py subscribes again to all it was told of; no two may connect at once."""
        connection = self._pubsub.connection
        if connection is not None and connection.is_connected:
            return
        async with asyncio.timeout(CONNECT_TIMEOUT_S), self._telling:
            await self._pubsub.connect()
        self._lost = False
        await self._tell_again()

    def _take(self, message: dict[str, Any]) -> None:
        name = message["channel"]
        if message["type"] == "subscribe":
            self._lost = False
            confirmed = self._confirmed.get(name)
            if confirmed is not None:
                confirmed.set()
        elif message["type"] == "message":
            chat_id = self._channels.get(name)
            subscriptions = self._followed.get(chat_id) if chat_id is not None else None
            if subscriptions:
                self._put(message["data"], subscriptions)

    def _put(self, payload: bytes, subscriptions: Iterable[Subscription]) -> None:
        try:
            entry = unpack(payload)
        except ValueError:
            return  # of a release that packs otherwise: the version check carries it
        for subscription in subscriptions:
            subscription.put(entry, len(payload))

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self._tell_again()
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
                subscription.nudge(versions.get(chat_id, GONE))


GONE = 2**62
"""The version of a chat that is no longer there: whoever reads the rows finds out."""
