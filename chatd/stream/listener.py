"""Listening: one Redis connection per process for every channel anybody here wants to hear."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

RECONNECT_S = 0.5
CONNECT_TIMEOUT_S = 5.0
SUBSCRIBE_TIMEOUT_S = 1.0
SILENCE_S = 2.0
"""After so long without a word Redis is asked for one; without an answer in as long again, the
connection is taken for dead (its other end may have gone without a FIN) and made anew."""

AWAY = (RedisError, OSError, TimeoutError)

log = logging.getLogger(__name__)

Take = Callable[[bytes], None]


class Listener:
    """Hands each channel's payloads to the one who asked for it. What is published while the
    connection is away is lost: whoever listens has another way to find out."""

    def __init__(self, redis: Redis, silence_s: float = SILENCE_S) -> None:
        self._silence_s = silence_s
        self._pubsub: Any = redis.pubsub()
        self._wanted: dict[bytes, Take] = {}
        self._confirmed: dict[bytes, asyncio.Event] = {}
        self._telling = asyncio.Lock()
        self._lost = False
        self._heard = True
        """Since the keeper last looked."""
        self._asked = False
        """Whether Redis owes an answer to a PING."""
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._listen(), name="listener"),
            asyncio.create_task(self._keep(), name="listener-keeper"),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pubsub.aclose()

    async def listen(self, name: bytes, take: Take) -> None:
        """From the return on, nothing published is missed (while Redis is there)."""
        confirmed = self._confirmed.get(name)
        if confirmed is None:
            confirmed = self._confirmed[name] = asyncio.Event()
            self._wanted[name] = take
            await self._tell(name)
        if not confirmed.is_set() and not self._lost:
            try:
                async with asyncio.timeout(SUBSCRIBE_TIMEOUT_S):
                    await confirmed.wait()
            except TimeoutError:
                self._lost = True

    def ignore(self, name: bytes) -> None:
        """Harmless for a channel that is not listened to. Redis is told with the next
        `tell_again`: one command for all that ended since, not one a turn."""
        self._wanted.pop(name, None)
        self._confirmed.pop(name, None)

    async def tell_again(self) -> None:
        """Tell Redis what it has not been told: it was away, or it was not worth a command."""
        told = self._pubsub.channels.keys() - self._pubsub.pending_unsubscribe_channels
        if await self._tell(*(self._wanted.keys() - told)):
            await self._tell(*(told - self._wanted.keys()))

    async def _tell(self, *names: bytes) -> bool:
        """Subscribe or unsubscribe, whichever is wanted by now; false when Redis is away."""
        try:
            async with asyncio.timeout(SUBSCRIBE_TIMEOUT_S), self._telling:
                wanted = [name for name in names if name in self._wanted]
                if wanted:
                    await self._pubsub.subscribe(*wanted)
                if len(wanted) < len(names):
                    await self._pubsub.unsubscribe(*(set(names) - set(wanted)))
        except AWAY:
            self._lost = True
            return False
        return True

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
                log.exception("listening failed")  # it is not the only way to find out
                await asyncio.sleep(RECONNECT_S)
                continue
            self._heard = True
            if message is not None:
                self._take(message)

    async def _keep(self) -> None:
        """Beside the listening, which so needs no time-out a message."""
        while True:
            await asyncio.sleep(self._silence_s)
            heard, self._heard = self._heard, False
            connection = self._pubsub.connection
            if heard or connection is None or not connection.is_connected:
                self._asked = False
                continue
            try:
                async with asyncio.timeout(SUBSCRIBE_TIMEOUT_S), self._telling:
                    if self._asked:
                        self._asked = False
                        await connection.disconnect(nowait=True)  # who reads it, connects again
                    else:
                        self._asked = True
                        await self._pubsub.ping()
            except AWAY:
                self._lost = True

    async def _connect(self) -> None:
        """redis-py subscribes again to all it was told of; no two may connect at once."""
        connection = self._pubsub.connection
        if connection is not None and connection.is_connected:
            return
        async with asyncio.timeout(CONNECT_TIMEOUT_S), self._telling:
            await self._pubsub.connect()
        self._lost = False
        await self.tell_again()

    def _take(self, message: dict[str, Any]) -> None:
        name = message["channel"]
        if message["type"] == "subscribe":
            self._lost = False
            confirmed = self._confirmed.get(name)
            if confirmed is not None:
                confirmed.set()
        elif message["type"] == "message":
            take = self._wanted.get(name)
            if take is not None:
                take(message["data"])
