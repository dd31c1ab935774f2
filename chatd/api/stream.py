"""Streams of a chat: who follows it, and the two routes' way into it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from uuid import UUID

import orjson

from chatd.api.flow import Flow, Pace
from chatd.api.following import Reader
from chatd.api.frames import Cursor, frame
from chatd.api.permits import Permit
from chatd.api.sse import EventStream
from chatd.commands import Submitted
from chatd.core.errors import Unavailable
from chatd.core.turns import ENDED
from chatd.store.db import Database
from chatd.store.following import ChatState, last_message, read_state
from chatd.store.watching import mark_read
from chatd.stream.hub import Hub, Subscription

AWAY_PAUSE_S = 0.5
MARK_TIMEOUT_S = 5.0

_ENDED = {status.value for status in ENDED}


class Follower:
    """A reader of one chat and what it reads from: entries, and rows when they are not enough."""

    def __init__(self, db: Database, hub: Hub, reader: Reader, subscription: Subscription) -> None:
        self._db = db
        self._hub = hub
        self.reader = reader
        self._subscription = subscription
        self._marking: asyncio.Task[None] | None = None
        self._wake: Callable[[], None] | None = None

    @property
    def finished(self) -> bool:
        return self.reader.finished

    @property
    def overrun(self) -> bool:
        return self._subscription.overrun

    @property
    def closing(self) -> bool:
        return self._subscription.closing

    def revoked(self) -> bytes:
        return self.reader.error("auth", "This stream is no longer allowed.")

    async def next(self, wait_s: float) -> bytes:
        reader, subscription = self.reader, self._subscription
        chunk = b""
        for entry in await subscription.wait(wait_s):
            chunk += reader.take(entry)
            if reader.behind:
                chunk += await self._catch_up()
                chunk += reader.take(entry)
                reader.behind = False
        if subscription.version > reader.cursor.version and not reader.finished:
            chunk += await self._catch_up()
            subscription.version = reader.cursor.version
        return chunk

    async def snapshot(self, cursor: str | None, after_id: int | None) -> bytes:
        """Redis position first, then the rows: what is published meanwhile waits in the queue."""
        reader = self.reader
        preview = await self._hub.preview(reader.chat)
        known = Cursor.parse(cursor) if cursor is not None else None
        if known == reader.cursor:
            known = cursor = None  # it hung up before it was told anything
        state = await self._read(known.message_id if known is not None else after_id)
        if state is None:
            return _gone(reader)
        frames = b""
        if cursor is None and after_id is not None and state.held:
            reader.begin(reader.cursor.at(message_id=after_id))
        elif known is not None and _continues(reader, known, state):
            reader.begin(known)
        elif cursor is not None or after_id is not None:
            frames = reader.restart()
            known = None
            state = await self._read(None)
            if state is None:
                return frames + _gone(reader)
        frames += reader.catch_up(state, repeat=known is not None)
        return frames + reader.replay(preview)

    async def _catch_up(self) -> bytes:
        reader = self.reader
        try:
            state = await self._read(reader.cursor.message_id)
            if state is not None and state.history_version > reader.cursor.version:
                frames = reader.restart()
                state = await self._read(None)
                return frames + (reader.catch_up(state) if state else _gone(reader))
        except Unavailable:
            await asyncio.sleep(AWAY_PAUSE_S)  # the version check brings us here again
            return b""
        return reader.catch_up(state) if state is not None else _gone(reader)

    async def _read(self, after: int | None) -> ChatState | None:
        return await read_state(self._db, self.reader.chat, after, self.reader.turn_id)

    def reads(self, wake: Callable[[], None]) -> None:
        """What it was told counts as read, now and at its end. A claim skips a chat that is
        locked, so who locks one wakes afterwards."""
        self._wake = wake
        self._marking = asyncio.create_task(self._mark())

    def nudge(self) -> None:
        self._subscription.nudge()

    async def close(self) -> None:
        self._hub.unsubscribe(self._subscription)
        if self._marking is not None:
            await self._marking
            await self._mark()

    async def _mark(self) -> None:
        """Best effort: a chat that stays unread harms nobody."""
        try:
            async with asyncio.timeout(MARK_TIMEOUT_S):
                marked = await mark_read(self._db, self.reader.chat, self.reader.cursor.message_id)
        except (Unavailable, TimeoutError):
            return
        if marked and self._wake is not None:
            self._wake()


def _never() -> None:
    """Nobody to wake."""


@dataclass(frozen=True, slots=True)
class Streams:
    """What a stream reads from."""

    db: Database
    hub: Hub
    pace: Pace = field(default_factory=Pace)
    wake: Callable[[], None] = _never

    async def follow(
        self, chat_id: UUID, permit: Permit, *, cursor: str | None, after_id: int | None
    ) -> Flow:
        """A snapshot (or what came after the cursor), then live. What this raises is the answer:
        no stream has begun."""
        follower = await self._follower(Reader(chat_id))
        try:
            first = await follower.snapshot(cursor, after_id)
        except BaseException:
            await follower.close()
            raise
        follower.reads(self.wake)
        return Flow(follower, permit, first, self.pace)

    async def chat(
        self, chat_id: UUID, permit: Permit, *, cursor: str | None, after_id: int | None
    ) -> EventStream:
        """`GET …/stream`."""
        return EventStream(await self.follow(chat_id, permit, cursor=cursor, after_id=after_id))

    async def submitted(
        self,
        chat_id: UUID,
        permit: Permit,
        submit: Callable[[], Awaitable[Submitted]],
        status: int = 201,
    ) -> EventStream:
        """A POST that streams its turn: what fails before the commit raises, as without a stream.

        Subscribes first, so that nothing of the turn is missed.
        """
        subscription = await self.hub.subscribe(chat_id)
        try:
            submitted = await submit()
            if submitted.chat_id != chat_id:
                self.hub.unsubscribe(subscription)
                subscription = await self.hub.subscribe(submitted.chat_id)
            reader = Reader(submitted.chat_id, turn_id=submitted.turn_id)
            follower = Follower(self.db, self.hub, reader, subscription)
            first = await self._accepted(follower, submitted)
        except BaseException:
            self.hub.unsubscribe(subscription)
            raise
        return EventStream(Flow(follower, permit, first, self.pace), status)

    async def _follower(self, reader: Reader) -> Follower:
        return Follower(self.db, self.hub, reader, await self.hub.subscribe(reader.chat))

    async def _accepted(self, follower: Follower, submitted: Submitted) -> bytes:
        """The answer as the first event; after a repeated request also where its turn is now."""
        turn, reader = submitted.body["turn"], follower.reader
        if submitted.created:
            last = turn["user_message_id"] or await self._last_message(submitted)
            reader.begin(Cursor.of(submitted.chat_id, submitted.version, last))
        first = frame(reader.cursor, ("turn", orjson.dumps(submitted.body)))
        if not submitted.created:
            first += await follower.snapshot(None, None)
            reader.finished = reader.finished or turn["status"] in _ENDED
        return first

    async def _last_message(self, submitted: Submitted) -> int:
        """Where a queued turn's stream begins; without the database still right, only earlier."""
        try:
            return await last_message(self.db, submitted.chat_id, submitted.version)
        except Unavailable:
            return 0


def _continues(reader: Reader, known: Cursor, state: ChatState) -> bool:
    """Whether a reader at this cursor may go on: this chat's, and no edit or clear since."""
    return (
        known.chat == reader.cursor.chat and state.history_version <= known.version <= state.version
    )


def _gone(reader: Reader) -> bytes:
    reader.finished = True
    return reader.error("auth", "This chat is no longer available.")
