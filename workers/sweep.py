"""The sweeper: a plain task in every worker that mends what crashes and lost wakes leave behind."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import aclosing, contextmanager, suppress
from uuid import UUID

from chatd import logs
from chatd.core.errors import Unavailable
from chatd.queue import Wakes
from chatd.revoking import Approvals
from chatd.store.accounts import answer_connected, find_connected, find_pointless
from chatd.store.db import Database
from chatd.store.informing import end_wait, find_waits_over
from chatd.store.items import expire_item, find_overdue
from chatd.store.suspending import end_work, find_suspended_at_work
from chatd.store.sweeping import (
    count_unclaimed,
    expire_turn,
    find_expired,
    find_stranded,
    promote_stranded,
)
from chatd.stream.publisher import Publisher

EVERY_S = 2.0
JITTER_S = 0.5
BLIND_S = 3.0
"""Out of touch with PostgreSQL for so long, others may not have been able to renew either."""

LEASE_S = 10.0

FAMILIES = 50
"""Of a suspended user's, in one round: the rest has a next one, and leases do not wait."""

FindItems = Callable[[Database], Awaitable[Sequence[tuple[UUID, UUID]]]]
MendItem = Callable[[Database, UUID, UUID], Awaitable[int | None]]
"""Items with their chats; one of them, answering the chat's version."""

_RULES: tuple[tuple[FindItems, MendItem], ...] = (
    (find_connected, answer_connected),
    (find_pointless, expire_item),
    (find_overdue, expire_item),
    (find_waits_over, end_wait),
)

log = logs.get("sweep")


class Sweeper:
    """Needs PostgreSQL only; also runs on a full worker. Two of them are harmless."""

    def __init__(
        self,
        db: Database,
        wakes: Wakes,
        publisher: Publisher,
        *,
        free: Callable[[], int],
        wake: Callable[[], None],
        approvals: Approvals | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._wakes = wakes
        self._publisher = publisher
        self._free = free
        self._wake = wake
        self._approvals = approvals
        self._clock = clock
        self._seen = clock()
        self._expire_from = 0.0

    async def run(self) -> None:
        rounds = [self.sweep]
        if self._approvals is not None:
            # There may be thousands, whose chats are locked just now: no lease waits for them.
            rounds.append(self._approvals.deny_refused)
        await asyncio.gather(*map(_forever, rounds))

    async def sweep(self) -> None:
        """One round of all rules. Raises `Unavailable`."""
        unclaimed = await count_unclaimed(self._db)
        now = self._clock()
        if now - self._seen > EVERY_S + JITTER_S + BLIND_S:
            self._expire_from = now + LEASE_S
        self._seen = now
        if now >= self._expire_from:
            await self._expire()
        for find, mend in _RULES:
            unclaimed += await self._close_items(find, mend)
        await self._end_suspended()
        for chat_id in await find_stranded(self._db):
            version = await _mended(promote_stranded(self._db, chat_id), chat_id)
            if version is not None:
                self._publisher.announce(chat_id, version)
                unclaimed += 1
        if unclaimed:
            self._wake()  # Redis may be what lost them
            self._wakes.wake(max(1, min(unclaimed, self._free())))

    async def _close_items(self, find: FindItems, mend: MendItem) -> int:
        """How many open items were closed; each may have let its turn go on."""
        closed = 0
        for item_id, chat_id in await find(self._db):
            version = await _mended(mend(self._db, item_id, chat_id), chat_id)
            if version is not None:
                self._publisher.announce(chat_id, version)
                closed += 1
        return closed

    async def _end_suspended(self) -> None:
        """What a request brought in just before its user was suspended, or whoever suspended them
        could not end. A running turn hears of it with its lease's next renewal."""
        for user_id in await find_suspended_at_work(self._db):
            with _apart("a user's work goes on", user=str(user_id)):
                async with aclosing(end_work(self._db, user_id, FAMILIES)) as work:
                    async for changed in work:
                        for chat_id, version in changed.versions.items():
                            self._publisher.announce(chat_id, version)

    async def _expire(self) -> None:
        for turn_id, chat_id in await find_expired(self._db):
            version = await _mended(expire_turn(self._db, turn_id, chat_id), chat_id)
            if version is not None:
                log.warning("lease expired", turn=str(turn_id), chat=str(chat_id))
                self._publisher.announce(chat_id, version)
                self._wakes.wake()


async def _forever(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(EVERY_S + random.uniform(-JITTER_S, JITTER_S))
        with suppress(Unavailable), _apart("sweep failed"):
            await work()


async def _mended(mending: Awaitable[int | None], chat_id: UUID) -> int | None:
    """The chat's version, None if there was no need or it could not be mended."""
    with _apart("a chat could not be mended", chat=str(chat_id)):
        return await mending
    return None


@contextmanager
def _apart(failed: str, **about: str) -> Generator[None]:
    """What cannot be mended must not keep what can from it. Raises `Unavailable`."""
    try:
        yield
    except Unavailable:
        raise
    except Exception as error:
        log.exception(failed, **about, error=type(error).__name__)
