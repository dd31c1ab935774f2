"""Watching all chats of an owner: hints say which to look at again, what is told is the difference.

A chat is read once per hint and process, however many watch. A hint that comes twice tells nothing;
one that is lost costs seconds, until the next round of `changed`.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Protocol
from uuid import UUID

import orjson

from chatd.core.errors import Unavailable
from chatd.core.items import action_required
from chatd.core.watching import Look, News, Sighting, news
from chatd.stream.entry import owner_channel
from chatd.stream.listener import Listener
from chatd.stream.mailbox import Mailbox

POLL_S = 3.0
"""How often what changed lately is compared with what was told."""

LATE_S = 40.0
"""A transaction may take so long from its time stamp to its commit: longer than any statement."""

AWAY_LONG_S = 45.0
"""After so long without an answer a deleted chat may have lost its row: then all are asked for."""

BATCH = 500
AWAY_PAUSE_S = 0.5
_ACTIVE = {"pending", "running", "interrupting", "requires_action"}

log = logging.getLogger(__name__)


class Reads(Protocol):
    """The database's side; all raise `Unavailable`."""

    async def owners(self, owner_ids: Sequence[UUID]) -> list[Look]: ...

    async def chats(self, chat_ids: Sequence[UUID]) -> Mapping[UUID, Sighting]: ...

    async def changed(
        self, owner_ids: Sequence[UUID], chat_ids: Sequence[UUID], within_s: float
    ) -> Mapping[UUID, tuple[UUID, int]]: ...


class Watcher(Mailbox[tuple[News, bytes]]):
    """One reader's news, each with its JSON."""

    def __init__(self, owner_id: UUID) -> None:
        super().__init__()
        self.owner_id = owner_id


class _Owner:
    """What an owner's watchers in this process have been told."""

    def __init__(self) -> None:
        self.watchers: set[Watcher] = set()
        self.looks: dict[UUID, Look] = {}
        self.suspects: set[UUID] = set()
        """Chats to look at again."""
        self.ready = False
        self.opening = asyncio.Lock()

    def version(self, chat_id: UUID) -> int | None:
        look = self.looks.get(chat_id)
        return look.version if look is not None else None


class Watchers:
    """All watchers of a process. Works without Redis, three seconds slower."""

    def __init__(self, listener: Listener, reads: Reads, poll_s: float = POLL_S) -> None:
        self._listener = listener
        self._reads = reads
        self._poll_s = poll_s
        self._owners: dict[UUID, _Owner] = {}
        self._some = asyncio.Event()
        self._compared: float | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.closing = False

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._look_again(), name="watchers-look"),
            asyncio.create_task(self._poll(), name="watchers-poll"),
        ]

    def drain(self) -> None:
        """End every watch: the process is going away, readers come back elsewhere."""
        self.closing = True
        for watcher in self._all():
            watcher.close()

    async def close(self) -> None:
        self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def count(self) -> int:
        return sum(1 for _ in self._all())

    @property
    def waiting_bytes(self) -> int:
        """What readers have not taken yet."""
        return sum(watcher.size for watcher in self._all())

    def _all(self) -> Iterable[Watcher]:
        return (watcher for owner in self._owners.values() for watcher in owner.watchers)

    async def watch(self, owner_id: UUID) -> Watcher:
        """From the return on, every change is told. Raises `Unavailable`."""
        watcher = Watcher(owner_id)
        if self.closing:
            watcher.close()
        owner = self._owners.setdefault(owner_id, _Owner())
        owner.watchers.add(watcher)
        try:
            async with owner.opening:
                if not owner.ready:
                    await self._open(owner_id, owner)
        except BaseException:
            self.leave(watcher)
            raise
        return watcher

    async def _open(self, owner_id: UUID, owner: _Owner) -> None:
        """Hear first, then read: what happens in between is looked at again."""
        await self._listener.listen(owner_channel(owner_id).encode(), partial(self._hint, owner_id))
        owner.looks = {look.id: look for look in await self._reads.owners([owner_id])}
        owner.ready = True
        self._some.set()

    def leave(self, watcher: Watcher) -> None:
        """Harmless a second time."""
        owner = self._owners.get(watcher.owner_id)
        if owner is None or watcher not in owner.watchers:
            return
        owner.watchers.discard(watcher)
        if not owner.watchers:
            del self._owners[watcher.owner_id]
            self._listener.ignore(owner_channel(watcher.owner_id).encode())

    def _hint(self, owner_id: UUID, payload: bytes) -> None:
        owner = self._owners.get(owner_id)
        if owner is None:
            return
        try:
            owner.suspects.add(UUID(payload.decode()))
        except ValueError:
            return  # of another release: the next round finds the chat
        self._some.set()

    # --- what is suspected, is looked at

    async def _look_again(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            try:
                await self._look()
            except Unavailable:
                await asyncio.sleep(AWAY_PAUSE_S)
                self._some.set()
            except Exception:
                log.exception("watching failed")
                await asyncio.sleep(AWAY_PAUSE_S)

    async def _look(self) -> None:
        """Everything suspected so far; what cannot be read now stays suspected."""
        while suspects := self._take_suspects():
            try:
                seen = await self._reads.chats(list(suspects))
            except BaseException:
                for chat_id, owner in suspects.items():
                    owner.suspects.add(chat_id)
                raise
            for chat_id, owner in suspects.items():
                self._tell(owner, chat_id, seen.get(chat_id))

    def _take_suspects(self) -> dict[UUID, _Owner]:
        ready = (owner for owner in self._owners.values() if owner.ready)
        found = ((chat_id, owner) for owner in ready for chat_id in owner.suspects)
        suspects = dict(islice(found, BATCH))
        for chat_id, owner in suspects.items():
            owner.suspects.discard(chat_id)
        return suspects

    def _tell(self, owner: _Owner, chat_id: UUID, seen: Sighting | None) -> None:
        before = owner.looks.get(chat_id)
        if seen is None:
            owner.looks.pop(chat_id, None)
            if before is not None and before.visible:
                chat = {"id": str(chat_id), "owner_id": str(before.owner_id)}
                _put(owner, "deleted", {"kind": "deleted", "chat": chat})
            return
        owner.looks[chat_id] = seen.look
        for kind in news(before, seen.look):
            data = {"kind": kind, "chat": seen.chat}
            if kind == "action_required":
                data |= action_required(seen.open_items)
            _put(owner, kind, data)

    # --- what was hinted at and not heard

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self._compare()
            except Unavailable:
                pass  # the next round will tell
            except Exception:
                log.exception("comparing chats failed")

    async def _compare(self) -> None:
        began = asyncio.get_running_loop().time()
        ready = {key: owner for key, owner in self._owners.items() if owner.ready}
        missed_s = began - (self._compared if self._compared is not None else began)
        everything = missed_s > AWAY_LONG_S
        asked = {
            look.id: owner
            for owner in ready.values()
            for look in owner.looks.values()
            if look.visible and (everything or look.status in _ACTIVE)
        }
        if ready:
            found = await self._reads.changed(list(ready), list(asked), missed_s + LATE_S)
            for chat_id, (owner_id, version) in found.items():
                owner = ready.get(owner_id)
                if owner is not None and owner.version(chat_id) != version:
                    owner.suspects.add(chat_id)
            for chat_id in asked.keys() - found.keys():
                asked[chat_id].suspects.add(chat_id)
            self._some.set()
        self._compared = began


def _put(owner: _Owner, kind: News, data: object) -> None:
    payload = orjson.dumps(data)
    for watcher in owner.watchers:
        watcher.put((kind, payload), len(payload))
