"""One reader of a chat: what it has seen, and what each entry or changed row means for it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from chatd.api.frames import Cursor, frame, from_row
from chatd.core.events import EventType
from chatd.core.items import action_required
from chatd.core.turns import ACTIVE, ENDED, TurnStatus, chat_status
from chatd.store.following import ChatState, TurnState
from chatd.stream.entry import Entry, Event

_ENDED = {status.value for status in ENDED}
_ACTIVE = {status.value for status in ACTIVE}
_SPEAKING = {TurnStatus.RUNNING.value, TurnStatus.INTERRUPTING.value}
"""A turn in any other status has no preview, whatever its worker still says."""


@dataclass(frozen=True, slots=True)
class _Told:
    """An event made from rows; `message_id` if it is a message."""

    event: Event
    turn_id: str | None
    message_id: int = 0


class Reader:
    """Pure state: entries and rows in, frames out. `turn_id` narrows it to one turn's events.

    A preview is shown only from its first part on and without gaps; whatever breaks it gives
    `preview_reset` and silence until the next step. Durable events are taken from an entry only
    when its version is exactly the next; anything else sets `behind`, and the caller reads rows.
    """

    def __init__(self, chat_id: UUID, *, turn_id: UUID | None = None) -> None:
        self.chat = chat_id
        self.chat_id = str(chat_id)
        self.turn_id = turn_id
        self.only = str(turn_id) if turn_id is not None else None
        self._start = Cursor.of(chat_id)
        self.cursor = self._start
        self.behind = False
        self.finished = False
        """The one turn it follows has ended, or needs its client to act."""
        self._turn: str | None = None
        self._attempt = 0
        self._commits = 0
        self._next: int | None = None
        self._blind = False
        self._shown = False
        self._queue = b""
        self._passed_from: int | None = None
        """The last message before those of other turns that it passed over in silence."""

    def begin(self, cursor: Cursor) -> None:
        """Start from a position known without reading rows: right after a commit of our own."""
        self.cursor = cursor

    # --- live entries

    def take(self, entry: Entry) -> bytes:
        """The frames of an entry, or none and `behind`."""
        if entry.is_preview:
            return self._take_preview(entry)
        if entry.version <= self.cursor.version:
            return b""
        if entry.version != self.cursor.version + 1 or not entry.events:
            self.behind = True
            return b""
        frames = self._reset_if_other(entry.turn_id, entry.attempt)
        self._track(entry.turn_id, entry.attempt, entry.commits)
        self._next = entry.last + 1
        frames += self._durable(entry)
        if entry.ended and entry.turn_id == self.only:
            self.finished = True
        return frames

    def _durable(self, entry: Entry) -> bytes:
        ids = iter(entry.message_ids)
        before = self.cursor
        if entry.message_ids and not self._is_for(entry.turn_id):
            self._passes_over(before.message_id)
        frames: list[bytes] = []
        for place, event in enumerate(entry.events):
            if event[0] == "message":
                before = before.at(message_id=next(ids))
            at = before
            if place == len(entry.events) - 1:
                at = self._after(entry, before)
            frames.append(self._frame(at, event, entry.turn_id))
        self.cursor = self._after(entry, before)
        return b"".join(frames)

    def _after(self, entry: Entry, before: Cursor) -> Cursor:
        return before.at(version=entry.version, attempt=entry.attempt, seq=entry.last)

    def _take_preview(self, entry: Entry) -> bytes:
        if entry.turn_id != self._turn or entry.attempt != self._attempt:
            # Nothing durable announced it: a stale attempt's, or we missed the claim.
            self.behind = (
                self.behind or entry.attempt > self._attempt or entry.turn_id != self._turn
            )
            return b""
        if entry.commits != self._commits:
            self.behind = entry.commits > self._commits
            return b""
        if self._next is None:
            self._next = entry.start
        if entry.last < self._next or self._blind:
            return b""
        if entry.first != self._next:
            self._blind = True
            return self.withdraw()
        return self._show(entry)

    def _show(self, entry: Entry) -> bytes:
        frames: list[bytes] = []
        for seq, event in enumerate(entry.events, entry.first):
            self.cursor = self.cursor.at(attempt=entry.attempt, seq=seq)
            self._shown = event[0] != "preview_reset"
            frames.append(self._frame(self.cursor, event, entry.turn_id))
        self._next = entry.last + 1
        return b"".join(frames)

    # --- rows

    def catch_up(self, state: ChatState, *, repeat: bool = False) -> bytes:
        """The frames of what the rows have beyond the cursor; a preview they replace goes first.

        `repeat`: for a reader that comes back; its status is said again, its preview withdrawn.
        """
        since = self.cursor.version
        current = state.turns[-1] if state.turns else None
        if any(turn.version > since and not self._is_for(turn.view["id"]) for turn in state.turns):
            self._passes_over(self.cursor.message_id)
        told: list[_Told] = []
        if current is not None:
            self._shown = self._shown or (repeat and since > 0)
            told += self._withdrawn_if_moved(current, always=repeat)
        told += self._messages(state)
        queue = orjson.dumps(state.queue)
        if queue != self._queue:
            self._queue = queue
            told.append(self._row("queue_update", None, {"queued_messages": state.queue}))
        for turn in self._told_of(state):
            if not since or turn.version > since or (turn is current and repeat):
                told += self._turn_rows(turn, state.turns, since)
        if current is not None:
            self._track(current.view["id"], current.view["attempt"], current.commits)
            self._blind = self._blind or current.view["status"] not in _SPEAKING
        self.behind = False
        return self._framed(told, state.version)

    def _told_of(self, state: ChatState) -> list[TurnState]:
        """A first snapshot tells of the current turn only; later, every change is told."""
        if self.only is not None:
            return [state.own] if state.own is not None else []
        return state.turns if self.cursor.version else state.turns[-1:]

    def _framed(self, told: list[_Told], version: int) -> bytes:
        """Only the last frame's cursor says that the rows were told completely.

        In a first snapshot already the one before it: the turn it told of may end meanwhile, and
        the last frame, the status, is said again to whoever comes back.
        """
        told = [row for row in told if self._is_for(row.turn_id)]
        whole = len(told) if self.cursor.version else len(told) - 1
        frames: list[bytes] = []
        for place, row in enumerate(told, 1):
            if row.message_id:
                self.cursor = self.cursor.at(message_id=row.message_id)
            if place >= whole:
                self.cursor = self.cursor.at(version=version)
            frames.append(self._frame(self.cursor, row.event, row.turn_id))
        self.cursor = self.cursor.at(version=version)
        return b"".join(frames)

    def restart(self) -> bytes:
        """The history the reader holds is not ours any more: it drops all, a snapshot follows."""
        self.cursor = self._start
        self._passed_from = None
        self._queue = b""
        self._shown = False
        return frame(self.cursor, from_row("history_reset", self.chat_id, None, {}))

    def withdraw(self) -> bytes:
        """Take back the preview, if one is shown."""
        return b"".join(frame(self._place(), row.event) for row in self._withdrawn())

    def replay(self, entries: Iterable[Entry]) -> bytes:
        """The running step's preview so far, from its first part or not at all."""
        return b"".join(
            self._take_preview(entry)
            for entry in entries
            if (entry.turn_id, entry.attempt, entry.commits)
            == (self._turn, self._attempt, self._commits)
        )

    def error(self, kind: str, message: str) -> bytes:
        """The last event of a stream that may not go on."""
        data = {"error": {"kind": kind, "message": message, "retryable": False}}
        return frame(self._place(), from_row("error", self.chat_id, None, data))

    def _withdrawn(self) -> list[_Told]:
        if not self._shown:
            return []
        self._shown = False
        return [self._row("preview_reset", None, {})]

    def _withdrawn_if_moved(self, turn: TurnState, *, always: bool) -> list[_Told]:
        now = (turn.view["id"], turn.view["attempt"], turn.commits)
        moved = now != (self._turn, self._attempt, self._commits)
        silent = turn.view["status"] not in _SPEAKING
        return self._withdrawn() if moved or silent or always else []

    def _messages(self, state: ChatState) -> list[_Told]:
        told: list[_Told] = []
        for message in state.messages:
            data: dict[str, Any] = {"message": message}
            if self.cursor == self._start and not told and self.only is None:
                data["has_more"] = state.has_more
            told.append(self._row("message", message["turn_id"], data, message["id"]))
        return told

    def _turn_rows(self, turn: TurnState, turns: list[TurnState], since: int) -> list[_Told]:
        view = turn.view
        active = next((t.view["status"] for t in turns if t.view["status"] in _ACTIVE), None)
        status = {
            "status": view["status"],
            "chat_status": chat_status(active, turns[-1].view["status"] if turns else None),
        }
        rows: list[tuple[EventType, dict[str, Any]]] = [("turn", {"turn": view})]
        if view["error"] is not None and turn.version > since:
            rows.append(("error", {"error": view["error"]}))
        asked = [item for item in view["open_items"] if item["kind"] != "child"]
        if asked:
            rows.append(("action_required", action_required(asked)))
        rows.append(("status", status))
        if view["id"] == self.only and (view["status"] in _ENDED or asked):
            self.finished = True
        return [_Told(from_row(kind, self.chat_id, view, data), view["id"]) for kind, data in rows]

    def _row(
        self, kind: EventType, turn_id: str | None, data: dict[str, Any], message_id: int = 0
    ) -> _Told:
        turn = {"id": turn_id, "attempt": 0} if turn_id is not None else None
        return _Told(from_row(kind, self.chat_id, turn, data), turn_id, message_id)

    # --- both

    def _track(self, turn_id: str | None, attempt: int, commits: int) -> None:
        if (turn_id, attempt, commits) != (self._turn, self._attempt, self._commits):
            self._turn, self._attempt, self._commits = turn_id, attempt, commits
            self._next = None
            self._blind = False
            self._shown = False

    def _reset_if_other(self, turn_id: str | None, attempt: int) -> bytes:
        other = (turn_id, attempt) != (self._turn, self._attempt)
        return self.withdraw() if other else b""

    def _frame(self, cursor: Cursor, event: Event, turn_id: str | None) -> bytes:
        return frame(self._place(cursor), event) if self._is_for(turn_id) else b""

    def _passes_over(self, message_id: int) -> None:
        if self._passed_from is None:
            self._passed_from = message_id

    def _place(self, cursor: Cursor | None = None) -> Cursor:
        """The cursor to show: whoever follows the whole chat from there misses no message."""
        cursor = cursor or self.cursor
        if self._passed_from is None:
            return cursor
        return cursor.at(message_id=min(cursor.message_id, self._passed_from))

    def _is_for(self, turn_id: str | None) -> bool:
        return self.only is None or turn_id is None or turn_id == self.only
