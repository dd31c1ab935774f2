"""Publishing: one task per process, the first delta at once, the others in a shared window."""

import asyncio
import contextlib
import logging
from typing import Any
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

from chatd.core.events import EventType
from chatd.core.messages import TextPart
from chatd.core.work import Claim
from chatd.stream.entry import (
    Entry,
    Event,
    channel,
    hint,
    owner_channel,
    pack,
    preview_key,
    render,
)

WINDOW_S = 0.05
"""How long a delta may wait for others; half the entries of a token each 20 ms."""

SEND_TIMEOUT_S = 2.0
RUNNING_TTL_S = 24 * 3600
ENDED_TTL_S = 60
MAX_PREVIEW_ENTRIES = 10_000
"""A preview longer than this loses its first part, and readers who come late see none of it."""

_FOR_OWNERS = {"status", "turn", "action_required"}
"""What makes a chat look different in its owner's list; every commit without events may, too."""

log = logging.getLogger(__name__)


class Publisher:
    """Sends the entries of all feeds in one pipeline. Redis being away loses previews, no more."""

    def __init__(self, redis: Redis, window_s: float = WINDOW_S) -> None:
        self._redis = redis
        self._window_s = window_s
        self._urgent: dict[int, TurnFeed] = {}
        self._windowed: dict[int, TurnFeed] = {}
        self._due = False
        self._hints: list[tuple[str, bytes]] = []
        self._owners: dict[tuple[UUID, UUID], None] = {}
        """Whose list of chats has changed, and by which chat."""
        self._wanted = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.failures = 0

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="publisher")

    async def close(self) -> None:
        """Send what is waiting, then stop."""
        if self._task is not None:
            self._closing = True
            self._wanted.set()
            await self._task
            await self._send()
            if self._timer is not None:
                self._timer.cancel()

    def announce(
        self, chat_id: UUID, version: int, *events: Event, owner_id: UUID | None = None
    ) -> None:
        """Tell followers of a commit made outside a turn's worker, and the owner's watchers.

        Without `owner_id` these find out by themselves, seconds later.
        """
        self._hints.append((channel(chat_id), pack(hint(version, events))))
        self._wanted.set()
        if owner_id is not None:
            self.touched(owner_id, chat_id)

    def touched(self, owner_id: UUID, chat_id: UUID) -> None:
        """Tell the owner's watchers, within the window: a turn that is short is told of once."""
        self._owners[owner_id, chat_id] = None
        self._open_window()

    def changed(self, feed: "TurnFeed", *, at_once: bool) -> None:
        """A feed has something to send: now, or within the window."""
        if at_once:
            self._urgent[id(feed)] = feed
            self._wanted.set()
            return
        self._windowed[id(feed)] = feed
        self._open_window()

    def _open_window(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._window_s, self._window_over)

    def _window_over(self) -> None:
        self._timer = None
        self._due = True
        self._wanted.set()

    def _fill(self, pipeline: Any) -> None:
        """The urgent feeds; those of the window only when it is over, or each end of a turn
        would cut everybody's window short."""
        feeds, self._urgent = self._urgent, {}
        hints, self._hints = self._hints, []
        if self._due or self._closing:
            feeds = self._windowed | feeds
            self._windowed = {}
            hints += [
                (owner_channel(owner_id), str(chat_id).encode())
                for owner_id, chat_id in self._owners
            ]
            self._owners = {}
            self._due = False
        for feed in feeds.values():
            feed.write(pipeline)
        for name, payload in hints:
            pipeline.publish(name, payload)

    async def _run(self) -> None:
        while not self._closing:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._send()
            except Exception:
                # An event that cannot be written must not silence the turns of a whole process.
                log.exception("publishing failed")
                self.failures += 1

    async def _send(self) -> None:
        pipeline: Any = self._redis.pipeline(transaction=False)
        self._fill(pipeline)
        if not len(pipeline):
            return
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                # A refused XADD is a stale attempt's: its entries must not be kept, nothing else.
                await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError, TimeoutError):
            self.failures += 1
            with contextlib.suppress(RedisError, OSError):
                await pipeline.reset()


class TurnFeed:
    """One attempt's entries, in order. `seq` counts its events from 1.

    Previews are kept in a stream under explicit ids `<claim version>-<seq>`: the server refuses
    those of an attempt that another has overtaken.
    """

    def __init__(self, publisher: Publisher, claim: Claim) -> None:
        self._publisher = publisher
        self._claim = claim
        self._chat_id = str(claim.chat_id)
        self._turn_id = str(claim.turn_id)
        self._order = claim.version
        self._attempt = claim.attempt
        self._commits = claim.commits
        self._seq = 0
        self._start = 1
        self._deltas: list[dict[str, Any]] = []
        self._ready: list[Entry] = []
        self._quiet = True
        self._ended = False

    def delta(self, part: Any, *, role: str = "assistant") -> None:
        """A piece of the message in flight; consecutive text is joined until it is sent."""
        last = self._deltas[-1] if self._deltas else None
        if last is not None and joins(last, role, part):
            last["pieces"].append(part["text"])
        else:
            self._deltas.append({"role": role, "part": part, "pieces": [part.get("text", "")]})
        self._publisher.changed(self, at_once=self._quiet)
        self._quiet = False

    def event(self, kind: EventType, data: dict[str, Any]) -> None:
        """An event that no row tells of: retry, notice, preview_reset."""
        self._flush_deltas()
        event = self._next(kind, data)
        self._ready.append(self._preview([event], self._seq))
        self._publisher.changed(self, at_once=True)

    def committed(
        self,
        version: int,
        commits: int,
        events: list[tuple[EventType, dict[str, Any]]],
        *,
        message_ids: tuple[int, ...] = (),
        ended: bool = False,
    ) -> None:
        """A commit and what it made. The preview it replaces is over.

        Without events, followers read the rows: the way for what other turns or the queue see.
        """
        self._flush_deltas()
        first = self._seq + 1
        rendered = [self._next(kind, data) for kind, data in events]
        entry = Entry(
            version=version,
            turn_id=self._turn_id,
            attempt=self._attempt,
            commits=commits,
            start=first,
            first=first,
            last=self._seq,
            events=tuple(rendered),
            message_ids=message_ids,
            ended=ended,
        )
        self._ready.append(entry)
        self._commits = commits
        self._start = self._seq + 1
        self._quiet = True
        self._ended = ended
        self._publisher.changed(self, at_once=True)
        if not events or any(kind in _FOR_OWNERS for kind, _ in events):
            self._publisher.touched(self._claim.owner_id, self._claim.chat_id)

    def write(self, pipeline: Any) -> None:
        """Put everything that waits into the pipeline."""
        self._flush_deltas()
        ready, self._ready = self._ready, []
        over = next((i for i in reversed(range(len(ready))) if not ready[i].is_preview), -1)
        for position, entry in enumerate(ready):
            payload = pack(entry)
            if entry.is_preview and position > over:
                self._keep(pipeline, entry, payload)
            pipeline.publish(channel(self._chat_id), payload)
        if self._ended:
            pipeline.expire(preview_key(self._chat_id), ENDED_TTL_S)

    def _keep(self, pipeline: Any, entry: Entry, payload: bytes) -> None:
        key = preview_key(self._chat_id)
        place = f"{self._order}-{entry.last}"
        if entry.first == entry.start:
            # The first part of a preview drops the one before; the key still knows its last id.
            pipeline.execute_command("XADD", key, "MINID", "=", place, place, "e", payload)
            pipeline.expire(key, RUNNING_TTL_S)
        else:
            pipeline.execute_command(
                "XADD", key, "MAXLEN", "~", MAX_PREVIEW_ENTRIES, place, "e", payload
            )

    def _flush_deltas(self) -> None:
        if not self._deltas:
            return
        deltas, self._deltas = self._deltas, []
        first = self._seq + 1
        events: list[Event] = []
        for delta in deltas:
            part = delta["part"]
            if len(delta["pieces"]) > 1:
                part = {**part, "text": "".join(delta["pieces"])}
            data = {"role": delta["role"], "part": part}
            events.append(self._next("message_part", data))
        self._ready.append(self._preview(events, first))

    def _next(self, kind: EventType, data: dict[str, Any]) -> Event:
        self._seq += 1
        return render(kind, self._chat_id, self._turn_id, self._attempt, self._seq, data)

    def _preview(self, events: list[Event], first: int) -> Entry:
        return Entry(
            0,
            self._turn_id,
            self._attempt,
            self._commits,
            self._start,
            first,
            self._seq,
            tuple(events),
        )


def joins(last: dict[str, Any], role: str, part: TextPart | dict[str, Any]) -> bool:
    """Whether a delta continues the one before it: same role, same kind, nothing but text."""
    kind = part["type"]
    return last["role"] == role and last["part"]["type"] == kind and kind in ("text", "reasoning")
