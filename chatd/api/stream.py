"""Streaming: a response of raw server-sent events, and the two routes' way into it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chatd import telemetry
from chatd.api.following import Reader
from chatd.api.frames import COMMENT, Cursor, frame
from chatd.commands import Submitted
from chatd.core.errors import Unavailable
from chatd.core.turns import ENDED
from chatd.store.db import Database
from chatd.store.following import ChatState, last_message_before, read_state
from chatd.stream.hub import Hub, Subscription

HEARTBEAT_S = 15.0
RECHECK_S = 30.0
"""How often a stream asks whether its token, user and chat still stand."""

SEND_TIMEOUT_S = 20.0
"""A reader that takes nothing for so long is dropped."""

LOOK_S = 5.0
"""How often that is looked at."""

AWAY_PAUSE_S = 0.5

HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}

Allowed = Callable[[], Awaitable[bool]]
_ENDED = {status.value for status in ENDED}


class EventStream(Response):
    """Sends what a generator of frames yields; ends with it, or when the client hangs up."""

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: AsyncGenerator[bytes],
        close: Callable[[], Awaitable[None]],
        status_code: int = 200,
    ) -> None:
        super().__init__(status_code=status_code, headers=HEADERS)
        del self.headers["content-length"]
        self._frames = frames
        self._close = close
        self._sending_since: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send_all(send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            done: set[asyncio.Task[None]] = set()
            while not done and not self._stuck():
                done, _ = await asyncio.wait(
                    {sending, gone}, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED
                )
            if not done:
                telemetry.FOLLOWERS_DROPPED.inc()
            if sending.done():
                sending.result()
        finally:
            gone.cancel()
            sending.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
            await asyncio.shield(self._close())

    def _stuck(self) -> bool:
        """Whether the reader has taken nothing for too long; cheaper than a time-out a send."""
        return self._sending_since is not None and (
            time.monotonic() - self._sending_since > SEND_TIMEOUT_S
        )

    async def _send_all(self, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        async with aclosing(self._frames) as frames:
            async for chunk in frames:
                if chunk:
                    self._sending_since = time.monotonic()
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    self._sending_since = None
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@dataclass(frozen=True, slots=True)
class Streams:
    """What a stream reads from."""

    db: Database
    hub: Hub
    heartbeat_s: float = HEARTBEAT_S
    recheck_s: float = RECHECK_S

    async def chat(
        self, chat_id: UUID, allowed: Allowed, *, cursor: str | None, after_id: int | None
    ) -> EventStream:
        """`GET …/stream`: a snapshot (or what came after the cursor), then live."""
        reader = Reader(chat_id)
        subscription = await self.hub.subscribe(chat_id)
        opening = self._snapshot(reader, chat_id, cursor, after_id)
        return await self._stream(reader, subscription, allowed, opening, 200)

    async def submitted(
        self, chat_id: UUID, allowed: Allowed, submit: Callable[[], Awaitable[Submitted]]
    ) -> EventStream:
        """A POST that streams its turn: what fails before the commit raises, as without a stream.

        Subscribes first, so that nothing of the turn is missed.
        """
        subscription = await self.hub.subscribe(chat_id)
        try:
            submitted = await submit()
            if submitted.chat_id != chat_id:
                await self.hub.unsubscribe(subscription)
                subscription = await self.hub.subscribe(submitted.chat_id)
        except BaseException:
            await self.hub.unsubscribe(subscription)
            raise
        reader = Reader(submitted.chat_id, turn_id=submitted.turn_id)
        opening = self._accepted(reader, submitted)
        return await self._stream(reader, subscription, allowed, opening, 201)

    async def _stream(
        self,
        reader: Reader,
        subscription: Subscription,
        allowed: Allowed,
        opening: Awaitable[bytes],
        status: int,
    ) -> EventStream:
        """What the opening raises is the answer: no stream has begun."""
        try:
            first = await opening
        except BaseException:
            await self.hub.unsubscribe(subscription)
            raise
        frames = self._frames(reader, subscription, allowed, first)
        return EventStream(frames, partial(self.hub.unsubscribe, subscription), status)

    async def _accepted(self, reader: Reader, submitted: Submitted) -> bytes:
        """The answer as the first event; after a repeated request also where its turn is now."""
        turn = submitted.body["turn"]
        if submitted.created:
            last = turn["user_message_id"] or await self._last_message(submitted)
            reader.begin(Cursor.of(submitted.chat_id, submitted.version, last))
        first = frame(reader.cursor, ("turn", orjson.dumps(submitted.body)))
        if not submitted.created:
            first += await self._snapshot(reader, submitted.chat_id, None, None)
            reader.finished = reader.finished or turn["status"] in _ENDED
        return first

    async def _last_message(self, submitted: Submitted) -> int:
        """Where a queued turn's stream begins; without the database still right, only earlier."""
        try:
            return await last_message_before(self.db, submitted.chat_id, submitted.turn_id)
        except Unavailable:
            return 0

    async def _read(self, reader: Reader, chat_id: UUID, after: int | None) -> ChatState | None:
        return await read_state(self.db, chat_id, after, reader.turn_id)

    async def _snapshot(
        self, reader: Reader, chat_id: UUID, cursor: str | None, after_id: int | None
    ) -> bytes:
        """Redis position first, then the rows: what is published meanwhile waits in the queue."""
        preview = await self.hub.preview(chat_id)
        known = Cursor.parse(cursor) if cursor is not None else None
        if known == reader.cursor:
            known = cursor = None  # it hung up before it was told anything
        after = known.message_id if known is not None else after_id
        state = await self._read(reader, chat_id, after)
        if state is None:
            return _gone(reader)
        frames = b""
        if cursor is not None and not _continues(reader, known, state):
            frames = reader.restart()
            known = None
            state = await self._read(reader, chat_id, None)
            if state is None:
                return frames + _gone(reader)
        if known is not None:
            reader.begin(known)
        frames += reader.catch_up(state, repeat=known is not None)
        return frames + reader.replay(preview)

    async def _frames(
        self,
        reader: Reader,
        subscription: Subscription,
        allowed: Allowed,
        first: bytes,
    ) -> AsyncGenerator[bytes]:
        yield COMMENT + first
        checked = spoken = time.monotonic()
        while not (reader.finished or subscription.overrun or subscription.closing):
            silent_s = time.monotonic() - spoken
            chunk = await self._next(reader, subscription, max(self.heartbeat_s - silent_s, 0))
            now = time.monotonic()
            if chunk or now - spoken >= self.heartbeat_s:
                yield chunk or COMMENT
                spoken = time.monotonic()
            if now - checked > self.recheck_s:
                checked = now
                if not await _still(allowed):
                    yield reader.error("auth", "This stream is no longer allowed.")
                    return
        if subscription.overrun:
            telemetry.FOLLOWERS_DROPPED.inc()

    async def _next(self, reader: Reader, subscription: Subscription, wait_s: float) -> bytes:
        """The frames of what comes next; empty when it says nothing, or nothing came in time."""
        chunk = b""
        for entry in await subscription.wait(wait_s):
            chunk += reader.take(entry)
            if reader.behind:
                chunk += await self._catch_up(reader, subscription.chat_id)
                chunk += reader.take(entry)
                reader.behind = False
        if subscription.version > reader.cursor.version and not reader.finished:
            chunk += await self._catch_up(reader, subscription.chat_id)
            subscription.version = reader.cursor.version
        return chunk

    async def _catch_up(self, reader: Reader, chat_id: UUID) -> bytes:
        try:
            state = await self._read(reader, chat_id, reader.cursor.message_id)
            if state is not None and state.history_version > reader.cursor.version:
                frames = reader.restart()
                state = await self._read(reader, chat_id, None)
                return frames + (reader.catch_up(state) if state else _gone(reader))
        except Unavailable:
            await asyncio.sleep(AWAY_PAUSE_S)  # the version check brings us here again
            return b""
        return reader.catch_up(state) if state is not None else _gone(reader)


def _continues(reader: Reader, known: Cursor | None, state: ChatState) -> bool:
    """Whether a reader at this cursor may go on: this chat's, and no edit or clear since."""
    return (
        known is not None
        and known.chat == reader.cursor.chat
        and state.history_version <= known.version <= state.version
    )


def _gone(reader: Reader) -> bytes:
    reader.finished = True
    return reader.error("auth", "This chat is no longer available.")


async def _still(allowed: Allowed) -> bool:
    """An unreachable database is no reason to hang up."""
    try:
        return await allowed()
    except Unavailable:
        return True


def wants_stream(accept: str | None) -> bool:
    """Whether the client asked for server-sent events."""
    return "text/event-stream" in (accept or "")
