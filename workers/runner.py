"""Turns in hand: claimed while there is room, leases renewed together, handed back on drain."""

import asyncio
from collections.abc import Set
from uuid import UUID

from chatd import logs, telemetry
from chatd.core.errors import Unavailable
from chatd.core.turns import TurnStatus
from chatd.core.work import Claim, Held
from chatd.store.db import Database
from chatd.store.leases import held_statuses
from chatd.store.policy_state import PolicyState
from chatd.store.work import claim_turns, owned, renew_leases
from chatd.turn.deps import Control, StopReason, TurnDeps
from chatd.turn.run import run_turn

CLAIM_BATCH = 4
"""Claimed at once: a burst costs fewer round trips, and other workers still get their share."""

MAX_SERVED = 64
"""Owners it remembers to have served, so that others come first."""

RENEW_S = 3.0
LEASE_S = 10.0
IDLE_CLAIM_S = 0.5
"""How often to claim unasked while Redis is away and no wake can come."""

log = logs.get("runner")


class _Running:
    __slots__ = ("claim", "control", "task")

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.control = Control()
        self.task: asyncio.Task[None] | None = None

    def stop(self, reason: StopReason) -> None:
        """Once: what was asked first is being done."""
        if self.control.stop is None and self.task is not None and not self.task.done():
            self.control.stop = reason
            self.task.cancel()


class Runner:
    """Runs up to `capacity` turns. `renewals` is a database of its own: a busy pool must not
    keep a lease from being renewed."""

    def __init__(
        self,
        deps: TurnDeps,
        renewals: Database,
        *,
        worker_id: str,
        capacity: int,
        per_owner: int = 0,
        renew_s: float = RENEW_S,
    ) -> None:
        self._deps = deps
        self._renewals = renewals
        self._worker_id = worker_id
        self._capacity = capacity
        self._renew_s = renew_s
        self._per_owner = per_owner
        self._served: dict[UUID, None] = {}
        """Whose turns it claimed, the latest last."""
        self._running: dict[UUID, _Running] = {}
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._draining = False
        self._limited = False
        """A model provider has a limit of turns."""
        self._missed = False
        """A wake came while there was no room."""
        self._claiming: asyncio.Task[None] | None = None
        self._asked: set[UUID] | None = None
        """Turns to look at that may be on their way to us, while a claim is under way."""
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._claiming = asyncio.create_task(self._claim_forever(), name="claim")
        self._tasks = [
            self._claiming,
            asyncio.create_task(self._renew_forever(), name="renew"),
        ]

    def wake(self) -> None:
        """Something may be runnable."""
        self._wake.set()

    def told(self, policy: PolicyState) -> None:
        """Policy has moved: the turns in hand decide anew, and more turns may be runnable."""
        for running in self._running.values():
            control = running.control
            control.policy_version = max(control.policy_version, policy.version)
        self._limited = policy.limited
        self._wake.set()

    @property
    def free(self) -> int:
        return 0 if self._draining else self._capacity - len(self._running)

    @property
    def busy(self) -> int:
        return len(self._running)

    async def room(self) -> None:
        """Wait until there is a free slot: a full worker takes no wakes."""
        await self._room.wait()

    async def drain(self, grace_s: float) -> None:
        """Claim nothing more; let turns end for `grace_s`, then hand the rest back."""
        self._draining = True
        self._room.clear()
        # A claim under way still brings its turns: they are let end or handed back like the others.
        self._wake.set()
        if self._claiming is not None:
            await asyncio.wait({self._claiming}, timeout=LEASE_S)
        tasks = {running.task for running in self._running.values() if running.task is not None}
        log.info("draining", turns=len(tasks), grace_s=grace_s)
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=grace_s)
            for running in list(self._running.values()):
                running.stop("drain")
            if left:
                await asyncio.wait(left, timeout=LEASE_S)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- claiming

    async def _claim_forever(self) -> None:
        while not self._draining:
            await self._wake.wait()
            self._wake.clear()
            try:
                while await self._claim_some():
                    pass
            except Unavailable:
                await asyncio.sleep(IDLE_CLAIM_S)
                self._wake.set()
            except Exception as error:
                log.exception("claiming failed", error=type(error).__name__)
                await asyncio.sleep(IDLE_CLAIM_S)
                self._wake.set()

    async def _claim_some(self) -> bool:
        """Whether there may be more to claim."""
        wanted = min(self.free, CLAIM_BATCH)
        if wanted <= 0:
            self._missed = True
            return False
        asked = self._asked = set[UUID]()
        try:
            with telemetry.stage("acquisition"):
                claims = await claim_turns(
                    self._deps.db,
                    self._worker_id,
                    wanted,
                    served=list(self._served),
                    per_owner=self._per_owner,
                    limited=self._limited,
                )
        finally:
            self._asked = None
        for claim in claims:
            self._begin(claim)
        if asked:
            await self.look(asked)
        return len(claims) == wanted

    def _begin(self, claim: Claim) -> None:
        self._served.pop(claim.owner_id, None)
        self._served[claim.owner_id] = None
        if len(self._served) > MAX_SERVED:
            del self._served[next(iter(self._served))]
        running = _Running(claim)
        self._running[claim.lease_id] = running
        if self.free <= 0:
            self._room.clear()
        running.task = asyncio.create_task(self._run(running), name=f"turn-{claim.turn_id}")
        # Not in the task itself: one that is cancelled before its first step never runs.
        running.task.add_done_callback(lambda _: self._leave(running))

    def _leave(self, running: _Running) -> None:
        del self._running[running.claim.lease_id]
        if not self._draining:
            self._room.set()
            # Under a limit another worker may have looked while this turn still counted.
            limited = self._limited or self._per_owner > 0
            if running.control.more or limited or self._missed:
                self._missed = False
                self._wake.set()
        elif self._limited:
            # What waited for this turn's provider is for another worker.
            self._deps.wakes.wake()

    async def _run(self, running: _Running) -> None:
        claim = running.claim
        ended = "lost"
        try:
            with logs.context(chat=str(claim.chat_id), turn=str(claim.turn_id)):
                ended = await run_turn(self._deps, claim, running.control)
                log.info("turn ended", status=ended, attempt=claim.attempt)
        except asyncio.CancelledError:
            if running.control.stop is None:
                raise
        except Exception as error:
            # What is left is an ending that could not be written; the lease runs out instead.
            log.exception("turn abandoned", error=type(error).__name__)
        if ended == "lost":
            telemetry.LEASES_LOST.inc()

    # --- leases

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(self._renew_s)
            held = list(self._running.values())
            _count(held)
            if not held:
                continue
            try:
                async with asyncio.timeout(RENEW_S):
                    await self._renew(held)
            except (Unavailable, TimeoutError):
                log.warning("leases could not be renewed", turns=len(held))
            except Exception as error:
                log.exception("renewal failed", error=type(error).__name__)

    async def _renew(self, held: list[_Running]) -> None:
        renewed = await renew_leases(self._renewals, [running.claim for running in held])
        missing: list[_Running] = []
        for running in held:
            found = renewed.get(running.claim.turn_id)
            if found is None:
                missing.append(running)
            else:
                _told(running, found)
        if missing:
            ours = await owned(self._renewals, [running.claim for running in missing])
            for running in missing:
                if running.claim.turn_id not in ours:
                    running.stop("lost")

    async def look(self, turn_ids: Set[UUID] | None = None) -> None:
        """Read again who holds these turns, or all; stop those that are stopped or not ours.

        Never raises for PostgreSQL being away: the renewal will find the same.
        """
        if self._asked is not None:
            self._asked |= turn_ids or set()
        held = [
            running
            for running in self._running.values()
            if turn_ids is None or running.claim.turn_id in turn_ids
        ]
        if not held:
            return
        try:
            async with asyncio.timeout(RENEW_S):
                found = await held_statuses(self._renewals, [running.claim for running in held])
        except (Unavailable, TimeoutError):
            return
        for running in held:
            status = found.get(running.claim.lease_id)
            if status is None:
                running.stop("lost")
            elif status == TurnStatus.INTERRUPTING:
                running.stop("interrupt")


def _count(held: list[_Running]) -> None:
    stopping = sum(running.control.stop is not None for running in held)
    telemetry.labelled(telemetry.CHATS, "running").set(len(held) - stopping)
    telemetry.labelled(telemetry.CHATS, "stopping").set(stopping)


def _told(running: _Running, found: Held) -> None:
    """What the renewal brought back: a stop or a policy change whose push was lost."""
    running.control.policy_version = max(running.control.policy_version, found.policy_version)
    if found.status == TurnStatus.INTERRUPTING:
        running.stop("interrupt")
