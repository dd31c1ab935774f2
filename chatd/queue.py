"""Wake-ups: an arq job that says "something is runnable", and a hint that makes it immediate.
Stops: "look at these turns", for the workers that run them. And "policy has moved", for everybody.

A wake carries no turn; PostgreSQL knows which are runnable. It may come twice, late or never: the
sweeper repairs a lost one, the renewal of leases a lost stop, a slow poll a lost change of policy.
So no Redis error leaves this module, but from `Hints.take`.
"""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast
from uuid import UUID, uuid4

import orjson
from arq.constants import job_key_prefix
from arq.jobs import serialize_job
from redis.asyncio import Redis
from redis.exceptions import RedisError

QUEUE = "chatd:turns"
WAKE_LIST = f"{QUEUE}:wake"
WAKE_JOB = "wake"
STOPS = "chatd:stops"
POLICY = "chatd:policy"
MAX_HINTS = 1000
"""Hints pile up while every worker is full; more than this say nothing new."""

MAX_WAKES = 100
"""Wakes sent at once: enough to start every idle slot of a process."""

JOB_TTL_MS = 300_000
"""A wake that nobody has taken for so long has long been repaired by the sweeper."""

SEND_TIMEOUT_S = 2.0
RECONNECT_S = 0.5
CONNECT_TIMEOUT_S = 5.0

AWAY = (RedisError, OSError, TimeoutError)

JobData = dict[str, Any]

log = logging.getLogger(__name__)


def to_bytes(data: JobData) -> bytes:
    """arq's job serializer: JSON, because its default (pickle) would run what Redis holds."""
    return orjson.dumps(data)


def from_bytes(data: bytes) -> JobData:
    return orjson.loads(data)


class _Sender(ABC):
    """Sends from one background task, so that a burst is one round trip."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._some = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.failures = 0
        """Sends that failed; what they would have said is found out more slowly."""

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=type(self).__name__.lower())

    async def close(self) -> None:
        """Send what is still wanted, then stop."""
        if self._task is not None:
            self._closing = True
            self._some.set()
            await self._task
            await self._send()

    async def _run(self) -> None:
        while not self._closing:
            await self._some.wait()
            self._some.clear()
            try:
                await self._send()
            except Exception:
                # Whatever it was: what comes next must still be sent.
                log.exception("sending failed")
                self.failures += 1

    async def _send(self) -> None:
        pipeline = self._gathered()
        if pipeline is None:
            return
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await pipeline.execute()
        except AWAY:
            self.failures += 1

    @abstractmethod
    def _gathered(self) -> Any:
        """A pipeline of all that is wanted by now, or None."""


class Wakes(_Sender):
    """Sends wakes."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self._wanted = 0

    def wake(self, turns: int = 1) -> None:
        """Ask for workers for this many turns; returns at once."""
        self._wanted = min(self._wanted + turns, MAX_WAKES)
        self._some.set()

    def _gathered(self) -> Any:
        wanted, self._wanted = self._wanted, 0
        if not wanted:
            return None
        now_ms = int(time.time() * 1000)
        job = serialize_job(WAKE_JOB, (), {}, None, now_ms, serializer=to_bytes)
        ids = [uuid4().hex for _ in range(wanted)]
        pipeline = self._redis.pipeline(transaction=False)
        for job_id in ids:
            pipeline.psetex(job_key_prefix + job_id, JOB_TTL_MS, job)
        pipeline.zadd(QUEUE, dict.fromkeys(ids, now_ms))
        pipeline.zremrangebyrank(QUEUE, 0, -MAX_HINTS - 1)
        pipeline.rpush(WAKE_LIST, *ids)
        pipeline.ltrim(WAKE_LIST, -MAX_HINTS, -1)
        return pipeline


class Stops(_Sender):
    """Tells all workers of turns that changed under one of them: it looks at their leases at once.

    A push that is lost costs the time to the next renewal of leases.
    """

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self._turns: list[str] = []

    def push(self, turn_ids: Iterable[UUID]) -> None:
        """Returns at once; of none, it says nothing."""
        self._turns += map(str, turn_ids)
        if self._turns:
            self._some.set()

    def _gathered(self) -> Any:
        turns, self._turns = self._turns, []
        if not turns:
            return None
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.publish(STOPS, orjson.dumps(turns))
        return pipeline


def stopped_turns(payload: bytes) -> frozenset[UUID]:
    """What `Stops` has published. Raises for what another release says otherwise."""
    return frozenset(UUID(turn_id) for turn_id in orjson.loads(payload))


class PolicyMoves(_Sender):
    """Tells every process that an administrator changed something: it reads what, at once.

    A push that is lost costs the time to the next poll of the policy version.
    """

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self._moved = False

    def push(self) -> None:
        """Returns at once."""
        self._moved = True
        self._some.set()

    def _gathered(self) -> Any:
        moved, self._moved = self._moved, False
        if not moved:
            return None
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.publish(POLICY, b"moved")
        return pipeline


class Listener:
    """Calls `take` with what is published on a channel, and with None whenever it may have missed
    some: when it begins to listen, and when it is back after Redis was away."""

    def __init__(
        self, redis: Redis, channel: str, take: Callable[[bytes | None], Awaitable[None]]
    ) -> None:
        self._redis = redis
        self._channel = channel
        self._take = take

    async def run(self) -> None:
        """Never ends by itself."""
        while True:
            try:
                await self._listen()
            except AWAY:
                pass
            except Exception:
                log.exception("listening failed")
            await asyncio.sleep(RECONNECT_S)

    async def _listen(self) -> None:
        pubsub: Any = self._redis.pubsub()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await pubsub.subscribe(self._channel)
            while True:
                message = await pubsub.get_message(timeout=None)
                if message is None:
                    continue
                if message["type"] == "subscribe":
                    await self._take(None)
                elif message["type"] == "message":
                    await self._take(message["data"])
        finally:
            await pubsub.aclose()


class Hints:
    """The reading end: blocks on the wake list; the job of a hint it took, it removes."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._taken: list[str] = []

    async def take(self, timeout_s: float) -> bool:
        """Wait for one hint; its arq job is then the caller's. Raises `RedisError`, `OSError`."""
        redis = cast(Any, self._redis)  # redis-py types its commands as sync or async
        taken, self._taken = self._taken, []
        pipeline = redis.pipeline(transaction=False)
        if taken:
            # The job's data stays until it expires: arq may be about to read it.
            pipeline.zrem(QUEUE, *taken)
        pipeline.blpop([WAKE_LIST], timeout=timeout_s)
        popped = (await pipeline.execute())[-1]
        if popped is None:
            return False
        self._taken.append(popped[1].decode())
        return True
