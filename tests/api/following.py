"""A chat on its way: real rows, a real recorder, real entries, and streams that follow them."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from redis.asyncio import Redis

from chatd.api.permits import Permit
from chatd.api.sse import EventStream
from chatd.api.stream import Streams
from chatd.core.answers import Answer
from chatd.core.deltas import Delta, Finished, Retrying
from chatd.core.messages import NO_USAGE
from chatd.core.tools import ToolResult
from chatd.core.turns import TurnStatus
from chatd.core.work import Claim, Notice, PlannedCall
from chatd.store.db import Database
from chatd.store.following import read_versions
from chatd.store.ids import new_id
from chatd.stream.hub import Hub
from chatd.turn.deps import Control, TurnDeps
from chatd.turn.record import Recorder
from tests.frontend import View
from tests.seed import Seed
from tests.turning import turn_deps
from tests.watching import Watch, watching


def allowed() -> Permit:
    return Permit(new_id())


class Speaker:
    """A worker's attempt at a turn, word by word."""

    def __init__(self, deps: TurnDeps, claim: Claim) -> None:
        self.claim = claim
        self.record = Recorder(deps, claim, Control())
        self.answer = Answer()

    def say(self, *deltas: Delta) -> None:
        for delta in deltas:
            self.answer.add(delta)
        self.record.preview(deltas)

    def retry(self, why: Retrying) -> None:
        self.answer = Answer()
        self.record.preview([why])

    async def step(self, step: int, *calls: PlannedCall) -> None:
        self.answer.add(Finished("tool_calls", NO_USAGE, "r"))
        answer, self.answer = self.answer, Answer()
        notice = Notice(code="unreachable", server_id=None, message="m")
        await self.record.step(answer, calls, step, 5, [notice])

    async def results(self, step: int, *calls: PlannedCall) -> None:
        await self.record.results(step, [(planned, ToolResult("3")) for planned in calls])

    async def end(self, step: int, status: TurnStatus = TurnStatus.COMPLETED) -> str:
        answer = replace(self.answer, usage=NO_USAGE)
        return await self.record.finish(status, answer=answer, step=step)


class Stage:
    """One chat's workers and its front doors."""

    def __init__(self, seed: Seed, deps: TurnDeps, doors: list[Streams]) -> None:
        self.seed = seed
        self.deps = deps
        self.doors = doors
        self._marker = new_id()

    async def speaker(self) -> Speaker:
        """Claims the one pending turn."""
        speaker = Speaker(self.deps, await self.seed.claim())
        speaker.record.started()
        return speaker

    async def delivered(self) -> None:
        """Everything published so far has reached every front door."""
        for door in self.doors:
            marker = await door.hub.subscribe(self._marker)
            # The second round is for what the first one found waiting for its window.
            for _ in range(2):
                self.deps.publisher.announce(self._marker, 1)
                while not await marker.wait(10):
                    pass
            door.hub.unsubscribe(marker)

    async def stream(
        self,
        chat_id: UUID,
        cursor: str | None = None,
        *,
        after_id: int | None = None,
        door: int = 0,
    ) -> EventStream:
        return await self.doors[door].chat(chat_id, allowed(), cursor=cursor, after_id=after_id)

    @asynccontextmanager
    async def watching(
        self, chat_id: UUID, *, view: View | None = None, **options: Any
    ) -> AsyncGenerator[Watch]:
        async with watching(await self.stream(chat_id, **options), view) as watch:
            yield watch


@asynccontextmanager
async def staged(
    seed: Seed, redis: Redis, *, doors: int = 1, poll_s: float = 3600, db: Database | None = None
) -> AsyncGenerator[Stage]:
    """`poll_s`: by default no version check helps. `db`: what the front doors read from."""
    async with AsyncExitStack() as stack:
        deps = await stack.enter_async_context(turn_deps(seed.db, redis))
        made: list[Streams] = []
        for _ in range(doors):
            hub = Hub(redis, partial(read_versions, db or seed.db), poll_s=poll_s)
            hub.start()
            stack.push_async_callback(hub.close)
            made.append(Streams(db or seed.db, hub))
        yield Stage(seed, deps, made)
