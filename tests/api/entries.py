"""Entries and rows as a reader gets them, made by hand."""

from typing import Any
from uuid import UUID

import orjson

from chatd.core.events import EventType
from chatd.store.following import ChatState, TurnState
from chatd.stream.entry import Entry, Event, render

CHAT, OWN, OTHER = (UUID(int=number) for number in (1, 2, 3))


def preview(
    words: str,
    first: int,
    *,
    turn: UUID = OWN,
    attempt: int = 1,
    commits: int = 0,
    start: int = 2,
) -> Entry:
    """An entry of one text part a word, numbered from `first`."""
    events = [
        event("message_part", turn, attempt, seq, {"part": {"type": "text", "text": word}})
        for seq, word in enumerate(words.split(), first)
    ]
    last = first + len(events) - 1
    return Entry(0, str(turn), attempt, commits, start, first, last, tuple(events))


def event(kind: EventType, turn: UUID, attempt: int, seq: int, data: dict[str, Any]) -> Event:
    return render(kind, str(CHAT), str(turn), attempt, seq, data)


def commit(
    version: int,
    *kinds: EventType,
    turn: UUID = OWN,
    attempt: int = 1,
    commits: int = 1,
    first: int = 1,
    **more: Any,
) -> Entry:
    """An entry of a commit; its messages have the ids version * 10 and up."""
    events = [event(kind, turn, attempt, seq, {}) for seq, kind in enumerate(kinds, first)]
    ids = tuple(range(version * 10, version * 10 + kinds.count("message")))
    last = first + len(events) - 1
    return Entry(
        version, str(turn), attempt, commits, first, first, last, tuple(events), ids, **more
    )


def turn_state(
    status: str,
    version: int,
    *,
    turn: UUID = OWN,
    attempt: int = 1,
    commits: int = 0,
    error: Any = None,
) -> TurnState:
    view = {
        "id": str(turn),
        "attempt": attempt,
        "status": status,
        "error": error,
        "open_items": [],
    }
    return TurnState(view, version, commits)


def state(version: int, *turns: TurnState, messages: tuple[int, ...] = (), queue: int = 0) -> Any:
    return ChatState(
        version=version,
        history_version=0,
        messages=[{"id": number, "turn_id": str(OWN)} for number in messages],
        has_more=False,
        queue=[{"id": number} for number in range(queue)],
        turns=[turn for turn in turns if turn.view["status"] != "queued"],
        own=next((turn for turn in turns if turn.view["id"] == str(OWN)), None),
    )


def told(frames: bytes) -> list[str]:
    """Each event as `name` or `name:text`."""
    found: list[str] = []
    for frame in frames.split(b"\n\n")[:-1]:
        _, name, data = frame.split(b"\n")
        text = orjson.loads(data[6:]).get("part", {}).get("text")
        found.append(name[7:].decode() + (f":{text}" if text else ""))
    return found


def ids(frames: bytes) -> list[str]:
    """The cursors, without the tag of their chat."""
    found = [frame.split(b"\n")[0][4:].decode() for frame in frames.split(b"\n\n")[:-1]]
    return [cursor.rpartition("-")[0] for cursor in found]
