"""What an administrator changes takes effect at once: sessions, tool lists and approvals go."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol
from uuid import UUID

from redis.asyncio import Redis

from chatd import logs
from chatd.core.errors import Unavailable
from chatd.core.reasons import Reason
from chatd.policy.pins import withdrawn
from chatd.policy.tools import Served, tool_refusal
from chatd.queue import POLICY, Listener, Wakes
from chatd.store.approvals import Approval, deny_refused, find_approvals
from chatd.store.db import Database
from chatd.store.loading import TurnLoader
from chatd.store.policy_state import PolicyState, locked_out, read_state, servers_in_use
from chatd.stream.publisher import Publisher

POLL_S = 4.0
"""How often to look unasked, in case Redis is away: a change is seen within five seconds."""

_FIRST = UUID(int=0)

log = logs.get("policy")

Keep = Callable[[UUID, int, UUID | None], bool]


class Droppable(Protocol):
    """What holds things of servers and their users: the session pool, the catalogue."""

    @property
    def users(self) -> frozenset[UUID]: ...

    def drop(self, keep: Keep) -> None: ...


class Approvals:
    """Closes what waits for a person whom nobody needs any more: policy refuses the call."""

    def __init__(
        self, db: Database, loader: TurnLoader, wakes: Wakes, publisher: Publisher
    ) -> None:
        self._db = db
        self._loader = loader
        self._wakes = wakes
        self._publisher = publisher
        self._known: int | None = None

    async def deny_refused(self) -> None:
        """All that are open if policy has moved since the last time, else the new ones.

        A process that dies here has done harm to nobody: any other does the rest. Raises
        `Unavailable`.
        """
        versions: list[int] = []
        after = _FIRST
        while page := await find_approvals(self._db, self._loader, self._known, after):
            versions.append(page.policy_version)
            after = page.last_id
            for item_id, error in page.broken:
                log.error("an approval cannot be read", item=str(item_id), error=error)
            for approval in page.approvals:
                await self._deny(approval)
        if versions:
            self._known = versions[0]

    async def _deny(self, approval: Approval) -> None:
        """One chat, one transaction; one that cannot be answered must not keep others from it."""
        try:
            if _refusal(approval) is None:
                return
            try:
                version = await deny_refused(self._db, self._loader, approval, _refusal)
            finally:
                self._wakes.wake()  # a claim passes over a locked chat
        except Unavailable:
            raise
        except Exception as error:
            chat_id = str(approval.chat_id)
            log.exception("an approval stays open", chat=chat_id, error=type(error).__name__)
            return
        if version is not None:
            self._publisher.announce(approval.chat_id, version, owner_id=approval.owner_id)


def _refusal(approval: Approval) -> Reason | None:
    server = approval.server
    gone = server is not None and withdrawn(
        server.tool_changes, as_pinned=approval.as_pinned, shared=approval.shared
    )
    served: Served | None = {} if gone else None
    return tool_refusal(approval.tool, approval.servers, approval.situation, served)


class PolicyWatch:
    """One per process: sees that policy has moved, by a push or by asking, and applies it here.

    `told` hears of the state at the beginning and whenever policy has moved.
    """

    def __init__(
        self,
        db: Database,
        approvals: Approvals,
        holders: Sequence[Droppable],
        told: Callable[[PolicyState], None] = lambda _: None,
        *,
        poll_s: float = POLL_S,
    ) -> None:
        self._db = db
        self._approvals = approvals
        self._holders = holders
        self._told = told
        self._poll_s = poll_s
        self._some = asyncio.Event()
        self._some.set()
        self._fresh = False
        self._ours = False
        self._known: int | None = None

    def moved(self) -> None:
        """This very process has committed a change: it also looks after the approvals."""
        self._ours = True
        self._some.set()

    async def heard(self, _: bytes | None = None) -> None:
        """Another one may have."""
        self._some.set()

    def listen(self, redis: Redis) -> Listener:
        return Listener(redis, POLICY, self.heard)

    async def run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._some.wait()
            self._some.clear()
            try:
                await self.look()
            except Unavailable:
                pass
            except Exception as error:
                log.exception("policy could not be applied", error=type(error).__name__)

    async def look(self) -> None:
        """Apply what has changed since the last time. Raises `Unavailable`: then look again."""
        state = await read_state(self._db)
        if state.version != self._known:
            self._told(state)
            await self._drop()
            self._known, self._fresh = state.version, True
        elif self._fresh:
            # A turn that had not heard of it may have connected once more meanwhile.
            await self._drop()
            self._fresh = False
        if self._ours:
            self._ours = False
            await self._approvals.deny_refused()

    async def _drop(self) -> None:
        users = frozenset[UUID]().union(*(holder.users for holder in self._holders))
        versions = await servers_in_use(self._db)
        refused = await locked_out(self._db, users)

        def keep(server_id: UUID, version: int, user_id: UUID | None) -> bool:
            if versions.get(server_id) != version:
                return False
            return user_id is None or (server_id, user_id) not in refused

        for holder in self._holders:
            holder.drop(keep)
