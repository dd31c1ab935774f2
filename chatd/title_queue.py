"""Titles that users ask for: the front door asks and waits, some worker answers.

Two Redis lists that are read blockingly, beside the wakes: a worker whose slots are all taken can
still make a title. Nothing is kept here; what is lost is asked for again.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID, uuid4

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from chatd.core.errors import TimedOut, Unavailable

REQUESTS = "chatd:titles"
MAX_REQUESTS = 1000
MAX_ASKING = 100
"""Titles that one process waits for: each takes a connection to Redis."""
WAIT_S = 30.0
TTL_S = 60
AWAY = (RedisError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class TitleRequest:
    """`until` is the lease on the chat: without it the answer is nobody's any more."""

    chat_id: UUID
    until: datetime
    save: bool
    id: str = ""


class TitleQueue:
    """Both ends. Only `ask` raises errors for people."""

    def __init__(self, redis: Redis, *, wait_s: float = WAIT_S) -> None:
        self._redis = cast(Any, redis)  # redis-py types its commands as sync or async
        self._wait_s = wait_s
        self._asking = 0

    async def ask(self, request: TitleRequest) -> str:
        """The title. Raises `Unavailable` when there is none, `TimedOut`."""
        if self._asking >= MAX_ASKING:
            raise Unavailable("Too many titles are asked for at the moment.")
        self._asking += 1
        try:
            return await self._ask(request)
        finally:
            self._asking -= 1

    async def _ask(self, request: TitleRequest) -> str:
        reply = f"{REQUESTS}:{uuid4().hex}"
        asked = {
            "id": reply,
            "chat_id": str(request.chat_id),
            "until": request.until.isoformat(),
            "save": request.save,
        }
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.rpush(REQUESTS, orjson.dumps(asked))
        pipeline.ltrim(REQUESTS, -MAX_REQUESTS, -1)
        pipeline.expire(REQUESTS, TTL_S)
        pipeline.blpop([reply], timeout=self._wait_s)
        try:
            async with asyncio.timeout(self._wait_s + 1):
                popped = (await pipeline.execute())[-1]
        except AWAY:
            raise Unavailable("Titles cannot be generated at the moment.") from None
        if popped is None:
            raise TimedOut("No title was generated in time; try again later.")
        answer = orjson.loads(popped[1])
        if not answer["title"]:
            raise Unavailable("No title could be generated.", detail=answer["problem"])
        return answer["title"]

    async def take(self, timeout_s: float) -> TitleRequest | None:
        """Raises one of `AWAY`."""
        async with asyncio.timeout(timeout_s + 1):
            popped = await self._redis.blpop([REQUESTS], timeout=timeout_s)
        if popped is None:
            return None
        asked = orjson.loads(popped[1])
        return TitleRequest(
            chat_id=UUID(asked["chat_id"]),
            until=datetime.fromisoformat(asked["until"]),
            save=asked["save"],
            id=asked["id"],
        )

    async def answer(self, request: TitleRequest, title: str, problem: str = "") -> None:
        """Raises one of `AWAY`."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.rpush(request.id, orjson.dumps({"title": title, "problem": problem}))
        pipeline.expire(request.id, TTL_S)
        await pipeline.execute()
