"""Streams that are open, and whether what opened them still lets its holders in: token or session.

One query of each for all of them every few seconds; at once for a user of whom Redis says that
something was taken from them.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from chatd.core.chats import Actor
from chatd.core.errors import TooMany, Unavailable
from chatd.people import REVOKED
from chatd.store.db import Database
from chatd.store.sessions import sessions_alive
from chatd.store.tokens import tokens_alive
from chatd.stream.listener import Listener

RECHECK_S = 4.0
"""With its query it stays under the five seconds in which a stream has to end without Redis."""

log = logging.getLogger(__name__)


def _nobody() -> None:
    """Nobody to nudge."""


@dataclass(eq=False, slots=True)
class Permit:
    """One stream's leave to go on. Without token and session it is the system's own: nobody takes
    it."""

    user_id: UUID
    token_id: UUID | None = None
    session_id: UUID | None = None
    held: set["Permit"] = field(default_factory=set["Permit"])
    """Where it is looked after while its stream runs."""
    revoked: bool = False
    exports: bool = False
    _nudge: Callable[[], None] = _nobody

    def begin(self, nudge: Callable[[], None] = _nobody) -> None:
        """`nudge` makes the stream look up."""
        self._nudge = nudge
        self.held.add(self)

    def end(self) -> None:
        self.held.discard(self)

    def revoke(self) -> None:
        self.revoked = True
        self._nudge()


class Permits:
    """All permits of a process. Works without Redis, seconds slower."""

    def __init__(self, db: Database, listener: Listener, every_s: float = RECHECK_S) -> None:
        self._db = db
        self._listener = listener
        self._every_s = every_s
        self._held: set[Permit] = set()
        self._suspects: set[UUID] = set()
        self._some = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._listen(), name="permits-listen"),
            asyncio.create_task(self._poll(), name="permits-poll"),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def admit(self, actor: Actor) -> Permit:
        """For a stream that this token or session has opened."""
        return Permit(actor.user_id, actor.token_id, actor.session_id, self._held)

    @contextmanager
    def export(self, actor: Actor) -> Generator[Permit]:
        """For an export, which goes on after the block unless that fails. A user has one at a time.

        Raises `TooMany`.
        """
        if any(permit.exports and permit.user_id == actor.user_id for permit in self._held):
            raise TooMany("You have an export under way.", detail="Let it end first.")
        permit = Permit(actor.user_id, actor.token_id, actor.session_id, self._held, exports=True)
        permit.begin()
        try:
            yield permit
        except BaseException:
            permit.end()
            raise

    async def _listen(self) -> None:
        await self._listener.listen(REVOKED.encode(), self._hear)
        while True:
            await self._some.wait()
            self._some.clear()
            suspects, self._suspects = self._suspects, set()
            await self._check([permit for permit in self._held if permit.user_id in suspects])

    def _hear(self, payload: bytes) -> None:
        try:
            self._suspects.add(UUID(payload.decode()))
        except ValueError:
            return  # of another release: the next round finds the stream
        self._some.set()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self._check(list(self._held))

    async def _check(self, permits: Collection[Permit]) -> None:
        """An unreachable database is no reason to hang up."""
        tokens = {permit.token_id for permit in permits if permit.token_id is not None}
        sessions = {permit.session_id for permit in permits if permit.session_id is not None}
        alive = frozenset[UUID | None]({None})
        try:
            if tokens:
                alive |= await tokens_alive(self._db, tokens)
            if sessions:
                alive |= await sessions_alive(self._db, sessions)
        except Unavailable:
            return
        except Exception:
            log.exception("checking tokens failed")
            return
        for permit in permits:
            if not {permit.token_id, permit.session_id} <= alive:
                permit.revoke()
