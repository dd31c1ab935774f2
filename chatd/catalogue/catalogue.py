"""Tool lists from memory, from Redis, from the server: in this order, and once for everybody."""

import asyncio
import contextvars
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from uuid import UUID

from redis.asyncio import Redis

from chatd.catalogue.entries import Age, Entry, Key, Listing, Skipped, key_of, skipped
from chatd.catalogue.pinning import Pinning
from chatd.catalogue.shared import Shared
from chatd.core.servers import McpServer, Principal, user_of
from chatd.mcp.errors import ServerFailed
from chatd.mcp.pool import SessionPool

COLD_S = 10.0
"""For all cold lists of a turn together."""
BREAKER_S = 60.0
CHANGES_S = 5.0
"""A server that says its tools changed is asked at most this often."""
POLL_S = 0.05
MAX_ENTRIES = 4096

_AT_ONCE: frozenset[Age] = frozenset({"fresh", "stale"})
_DROPS = frozenset({"auth_required", "forbidden", "not_found"})
_OPENS_BREAKER = frozenset({"timeout", "refused"})

_DOWN = ServerFailed("refused", "the server could not be reached a moment ago")
_NO_ENTRY: tuple[int, Entry | None] = (-1, None)

Owner = tuple[UUID, str]
Request = tuple[McpServer, Principal]
Outcome = Listing | Skipped

log = logging.getLogger(__name__)


class Catalogue:
    """One per process. `clock`: seconds since the epoch, as ages are compared across processes."""

    def __init__(
        self,
        redis: Redis,
        pool: SessionPool,
        pinning: Pinning,
        *,
        clock: Callable[[], float] = time.time,
        cold_s: float = COLD_S,
    ) -> None:
        self._shared = Shared(redis)
        self._pool = pool
        self._pinning = pinning
        self._clock = clock
        self._cold_s = cold_s
        self._entries: OrderedDict[Owner, tuple[int, Entry]] = OrderedDict()
        self._fetching: dict[Key, asyncio.Task[Outcome]] = {}
        self._dropped: set[Key] = set()
        """Of what is being fetched, that which nobody wants kept any more."""
        self._down_until: dict[tuple[UUID, int], float] = {}
        self._changed_at: dict[Key, float] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        pool.watch(self.changed)

    async def lists(self, requests: Sequence[Request]) -> list[Outcome]:
        """One answer for each request, in order. Waits for nothing when all are at hand."""
        outcomes = [self._at_hand(server, principal) for server, principal in requests]
        if None not in outcomes:
            return [outcome for outcome in outcomes if outcome is not None]
        return await self._with_cold(requests, outcomes)

    def changed(self, server: McpServer, principal: Principal) -> None:
        """The server says its list is another now: fetched again soon, if we hold one."""
        entry = self._entry(server, principal)
        if entry is not None:
            self._changed_at[key_of(server, principal)] = self._clock()
            self._fetch_later(server, principal, entry)

    @property
    def users(self) -> frozenset[UUID]:
        """Whose own lists are held."""
        held_for = (user_of(principal) for _, principal in self._entries)
        return frozenset(user_id for user_id in held_for if user_id is not None)

    def drop(self, keep: Callable[[UUID, int, UUID | None], bool]) -> None:
        """Forget the lists of servers, versions and users that `keep` does not keep. The fleet's
        copies of them are never read again, and expire."""

        def gone(key: Key) -> bool:
            return not keep(key.server_id, key.version, user_of(key.principal))

        for owner, (version, _) in tuple(self._entries.items()):
            if gone(Key(owner[0], version, owner[1])):
                del self._entries[owner]
        for key in filter(gone, tuple(self._timers)):
            self._timers.pop(key).cancel()
        for key in filter(gone, tuple(self._changed_at)):
            del self._changed_at[key]
        for config in tuple(self._down_until):
            if not keep(*config, None):
                del self._down_until[config]
        self._dropped |= set(filter(gone, self._fetching))

    async def down(self, configs: Sequence[tuple[UUID, int]]) -> frozenset[UUID]:
        """Those servers of these (id, version) whose breaker is open somewhere in the fleet."""
        return await self._shared.down(configs)

    async def settled(self) -> None:
        """Returns when no fetch runs that began before."""
        if self._fetching:
            await asyncio.wait(set(self._fetching.values()))

    async def aclose(self) -> None:
        """Leaves fetches to themselves; another process may take them up again."""
        for timer in self._timers.values():
            timer.cancel()
        for task in self._fetching.values():
            task.cancel()

    async def _with_cold(
        self, requests: Sequence[Request], outcomes: Sequence[Outcome | None]
    ) -> list[Outcome]:
        tasks = [
            None if outcome else self._fetch(*request)
            for request, outcome in zip(requests, outcomes, strict=True)
        ]
        await asyncio.wait({task for task in tasks if task}, timeout=self._cold_s)
        late = ServerFailed("timeout", "no answer in time")
        answers: list[Outcome] = []
        for request, outcome, task in zip(requests, outcomes, tasks, strict=True):
            if task is not None and task.done() and not task.cancelled():
                outcome = task.result()
            answers.append(outcome or self._fallback(*request, late))
        return answers

    def _at_hand(self, server: McpServer, principal: Principal) -> Listing | None:
        """From memory; what is stale is served and fetched again behind the turn's back."""
        entry = self._entry(server, principal)
        if entry is None:
            return None
        age = entry.age(self._clock())
        if age == "stale" and not self._is_down(server):
            self._fetch(server, principal)
        return entry.listing if age in _AT_ONCE else None

    def _fetch(self, server: McpServer, principal: Principal) -> "asyncio.Task[Outcome]":
        """One fetch per key in this process, whoever waits for it and however long."""
        key = key_of(server, principal)
        task = self._fetching.get(key)
        if task is None:
            # An empty context: it belongs to no turn.
            task = asyncio.create_task(
                self._fetched(server, principal), context=contextvars.Context()
            )
            self._fetching[key] = task

            def fetched(_: object) -> None:
                self._fetching.pop(key, None)
                self._dropped.discard(key)

            task.add_done_callback(fetched)
        return task

    def _fetch_later(self, server: McpServer, principal: Principal, entry: Entry) -> None:
        key = key_of(server, principal)

        def now() -> None:
            del self._timers[key]
            self._fetch(server, principal)

        if key not in self._timers:
            wait = max(entry.fetched_at + CHANGES_S - self._clock(), 0.0)
            self._timers[key] = asyncio.get_running_loop().call_later(
                wait, now, context=contextvars.Context()
            )

    async def _fetched(self, server: McpServer, principal: Principal) -> Outcome:
        try:
            return await self._obtained(server, principal)
        except Exception:
            # A defect of ours must not cost the turn more than this server.
            log.exception("the tools of MCP server %s could not be fetched", server.slug)
            return self._fallback(server, principal, ServerFailed("protocol", "internal error"))

    async def _obtained(self, server: McpServer, principal: Principal) -> Outcome:
        """What another process fetched, or fetches while we wait, else our own fetch."""
        key = key_of(server, principal)
        loop = asyncio.get_running_loop()
        until = loop.time() + self._cold_s
        while True:
            known = await self._shared.read(key)
            if known.entry is not None and self._take(server, principal, known.entry):
                return known.entry.listing
            if known.down or self._is_down(server):
                self._changed_at.pop(key, None)
                return self._fallback(server, principal, _DOWN)
            if not known.locked and await self._shared.lock(key):
                break
            if loop.time() + 2 * POLL_S > until:
                break
            await asyncio.sleep(POLL_S)
        return await self._dialled(server, principal, until - loop.time())

    async def _dialled(self, server: McpServer, principal: Principal, within_s: float) -> Outcome:
        key = key_of(server, principal)
        started = self._clock()
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        try:
            fresh = await self._pool.list_tools(server, principal, timeout_s=within_s)
            left_s = until - loop.time()
            listed = await self._pinning.resolve(server, principal, fresh, within_s=left_s)
        except ServerFailed as failed:
            return await self._failed(server, principal, failed)
        entry = Entry(server.id, listed, started)
        self._remember(server, principal, entry)
        self._down_until.pop((server.id, server.version), None)
        if self._changed_at.get(key, 0.0) > started:
            self._fetch_later(server, principal, entry)
        else:
            self._changed_at.pop(key, None)
        await self._shared.write(key, entry)
        return entry.listing

    async def _failed(
        self, server: McpServer, principal: Principal, failed: ServerFailed
    ) -> Outcome:
        key = key_of(server, principal)
        self._changed_at.pop(key, None)
        drop = failed.reason in _DROPS
        down_s = BREAKER_S if failed.reason in _OPENS_BREAKER else 0.0
        if drop and self._entry(server, principal) is not None:
            del self._entries[server.id, principal.key]
        if down_s:
            self._down_until[server.id, server.version] = self._clock() + down_s
        await self._shared.fail(key, down_s=down_s, drop=drop)
        return self._fallback(server, principal, failed)

    def _take(self, server: McpServer, principal: Principal, found: Entry) -> bool:
        """Keeps what another process fetched, if it is newer; true when it may be served at once.

        While ours may be served too, only a fresh one ends the search for a newer one.
        """
        held = self._entry(server, principal)
        if held is None or held.fetched_at < found.fetched_at:
            self._remember(server, principal, found)
        now = self._clock()
        enough = {"fresh"} if held is not None and held.age(now) in _AT_ONCE else _AT_ONCE
        changed_at = self._changed_at.get(key_of(server, principal), 0.0)
        return found.age(now) in enough and found.fetched_at > changed_at

    def _fallback(self, server: McpServer, principal: Principal, failed: ServerFailed) -> Outcome:
        entry = self._entry(server, principal)
        if entry is None or entry.age(self._clock()) == "expired":
            return skipped(server, failed)
        return entry.listing

    def _entry(self, server: McpServer, principal: Principal) -> Entry | None:
        version, entry = self._entries.get((server.id, principal.key), _NO_ENTRY)
        return entry if version == server.version else None

    def _remember(self, server: McpServer, principal: Principal, entry: Entry) -> None:
        """In place of the list of any older version of this configuration."""
        owner = (server.id, principal.key)
        held, _ = self._entries.get(owner, _NO_ENTRY)
        if held > server.version or key_of(server, principal) in self._dropped:
            return
        self._entries[owner] = (server.version, entry)
        self._entries.move_to_end(owner)
        if len(self._entries) > MAX_ENTRIES:
            self._entries.popitem(last=False)

    def _is_down(self, server: McpServer) -> bool:
        return self._clock() < self._down_until.get((server.id, server.version), 0.0)
