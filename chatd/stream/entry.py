"""What travels over Redis: a header that says where an entry belongs, then finished event JSON.

The worker renders each event once; an api process frames the bytes and does not parse them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from chatd.core.events import EventType

Event = tuple[EventType, bytes]
"""An event's type and its JSON object."""


def render(
    kind: EventType, chat_id: str, turn_id: str | None, attempt: int, seq: int, data: dict[str, Any]
) -> Event:
    """One event as the native format shows it: `type`, where it belongs, then its own fields."""
    head = {"type": kind, "chat_id": chat_id, "turn_id": turn_id, "attempt": attempt, "seq": seq}
    return kind, orjson.dumps(head | data)


@dataclass(frozen=True, slots=True)
class Entry:
    """Events that belong together.

    `version` is the chat's after the commit they tell of, or 0 for a preview. A preview follows the
    turn's first `commits` commits of `attempt`; its events have the numbers `first` to `last`, and
    the whole preview began with number `start`.
    """

    version: int
    turn_id: str | None
    attempt: int
    commits: int
    start: int
    first: int
    last: int
    events: tuple[Event, ...]
    message_ids: tuple[int, ...] = ()
    """Of the events that are messages, in their order."""
    ended: bool = False
    """The turn's last entry."""

    @property
    def is_preview(self) -> bool:
        return self.version == 0


def pack(entry: Entry) -> bytes:
    """Header and events, a line each (JSON has no raw newline)."""
    header = [
        entry.version,
        entry.turn_id,
        entry.attempt,
        entry.commits,
        entry.start,
        entry.first,
        entry.last,
        entry.message_ids,
        entry.ended,
    ]
    lines = [orjson.dumps(header)]
    lines += [kind.encode() + b" " + data for kind, data in entry.events]
    return b"\n".join(lines)


def unpack(payload: bytes) -> Entry:
    header, *lines = payload.split(b"\n")
    events: list[Event] = []
    for line in lines:
        kind, _, data = line.partition(b" ")
        events.append((kind.decode(), data))  # pyright: ignore[reportArgumentType]
    version, turn_id, attempt, commits, start, first, last, ids, ended = orjson.loads(header)
    return Entry(
        version, turn_id, attempt, commits, start, first, last, tuple(events), tuple(ids), ended
    )


def hint(version: int, events: Sequence[Event] = ()) -> Entry:
    """A commit made outside a turn's worker: the version, and its events when they are at hand."""
    return Entry(version, None, 0, 0, 0, 0, 0, tuple(events))


def channel(chat_id: UUID | str) -> str:
    return f"chatd:events:{chat_id}"


def preview_key(chat_id: UUID | str) -> str:
    return f"chatd:preview:{chat_id}"


def owner_channel(owner_id: UUID | str) -> str:
    """Where an owner's watchers hear which chat (its id as text) may look different now."""
    return f"chatd:owner:{owner_id}"
