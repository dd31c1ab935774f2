"""Events on the wire: cursors, frames, and events made from rows."""

import re
from dataclasses import dataclass, replace
from typing import Any, Self
from uuid import UUID
from zlib import crc32

from chatd.core.events import EventType
from chatd.stream.entry import Event, render

COMMENT = b": \n\n"

_CURSOR = re.compile(r"(\d{1,18})-(\d{1,18})-(\d{1,9})-(\d{1,9})-([0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a reader is: the chat's version, the last message id, and the preview's position.

    Opaque to clients. `version` is the last one read completely; messages after `message_id` may
    still follow for the next one. `chat` tells one chat's cursors from another's.
    """

    version: int = 0
    message_id: int = 0
    attempt: int = 0
    seq: int = 0
    chat: int = 0

    @classmethod
    def of(cls, chat_id: UUID, version: int = 0, message_id: int = 0) -> Self:
        return cls(version, message_id, chat=crc32(chat_id.bytes))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None for anything that is not one of ours."""
        match = _CURSOR.fullmatch(text)
        if match is None:
            return None
        *numbers, chat = match.groups()
        return cls(*(int(number) for number in numbers), chat=int(chat, 16))

    def encode(self) -> bytes:
        place = (self.version, self.message_id, self.attempt, self.seq)
        return b"%d-%d-%d-%d-%08x" % (*place, self.chat)

    def at(self, **changes: int) -> "Cursor":
        return replace(self, **changes)


def frame(cursor: Cursor, event: Event) -> bytes:
    """One event. `error` is EventSource's own event name, so ours is `chat_error` there."""
    kind, data = event
    name = b"chat_error" if kind == "error" else kind.encode()
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (cursor.encode(), name, data)


def plain_frame(name: str, data: bytes) -> bytes:
    """An event of a stream that nobody can go on with: it has no cursor."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def texts(chunk: bytes) -> list[str]:
    """The events of some frames as WebSocket messages, `{id, event, data}` each; no comments."""
    messages: list[str] = []
    for block in chunk.split(b"\n\n"):
        lines = [line for line in block.split(b"\n") if line and not line.startswith(b":")]
        if lines:
            fields = dict(line.split(b": ", 1) for line in lines)
            place = b'"%b"' % fields[b"id"] if b"id" in fields else b"null"
            message = b'{"id":%b,"event":"%b","data":%b}'
            messages.append((message % (place, fields[b"event"], fields[b"data"])).decode())
    return messages


def from_row(kind: EventType, chat_id: str, turn: Any | None, data: dict[str, Any]) -> Event:
    """An event read from rows; `seq` 0 says that it is no part of a live sequence."""
    turn_id = turn["id"] if turn is not None else None
    attempt = turn["attempt"] if turn is not None else 0
    return render(kind, chat_id, turn_id, attempt, 0, data)
