"""What a frontend keeps of a chat: events in, messages, queue, status and preview out."""

from dataclasses import dataclass, field
from typing import Any

import orjson

ENDED = frozenset({"completed", "interrupted", "failed", "cancelled", "superseded"})


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event; `id` is the cursor after it."""

    id: str
    name: str
    data: dict[str, Any]


@dataclass
class View:
    """Raises AssertionError when an event breaks what the stream promises."""

    messages: dict[int, Any] = field(default_factory=dict[int, Any])
    queue: list[Any] = field(default_factory=list[Any])
    status: str = ""
    turns: dict[str, str] = field(default_factory=dict[str, str])
    """Status by turn."""
    preview: str = ""
    """The text of the answer that is being written."""
    longest: str = ""
    """The longest preview so far: not what a frontend keeps, but what a test wants to know."""
    results: list[Any] = field(default_factory=list[Any])
    """Tool results shown before their step was complete."""
    asked: list[Any] = field(default_factory=list[Any])
    """What the user was told to do."""
    notices: list[Any] = field(default_factory=list[Any])
    retries: list[Any] = field(default_factory=list[Any])
    errors: list[Any] = field(default_factory=list[Any])
    resets: int = 0
    """How often a preview was withdrawn."""
    restarts: int = 0
    """How often the history was."""
    cursor: str | None = None
    _attempts: dict[str, int] = field(default_factory=dict[str, int])

    def take(self, event: Event) -> None:
        self.cursor = event.id
        self._follow_attempt(event.data)
        # Another name is an event that no frontend knows.
        getattr(self, f"on_{event.name}")(event.data)

    def snapshot(self) -> bytes:
        """What stays when the turn is over, as JSON: readers are compared byte by byte."""
        kept = [self.messages[message_id] for message_id in sorted(self.messages)]
        state = {"messages": kept, "queue": self.queue, "status": self.status}
        return orjson.dumps(state, option=orjson.OPT_SORT_KEYS)

    def ended(self, turn_id: str) -> bool:
        return self.turns.get(turn_id, "") in ENDED

    def attempt(self, turn_id: str) -> int:
        """The highest one that an event carried."""
        return self._attempts.get(turn_id, 0)

    def on_turn(self, data: Any) -> None:
        turn = data["turn"]
        self.turns[turn["id"]] = turn["status"]

    def on_message(self, data: Any) -> None:
        message = data["message"]
        if message["role"] == "assistant":
            stored = text_of(message)
            assert stored.startswith(self.preview), f"{self.preview!r} was shown, kept: {stored!r}"
        known = self.messages.setdefault(message["id"], message)
        assert known == message, "a message changed"
        if message["role"] != "user":
            self.preview = ""
            self.results = []

    def on_message_part(self, data: Any) -> None:
        part = data["part"]
        if data["role"] == "tool":
            self.results.append(part)
        elif part["type"] == "text":
            self.preview += part["text"]
            self.longest = max(self.longest, self.preview, key=len)

    def on_queue_update(self, data: Any) -> None:
        self.queue = data["queued_messages"]

    def on_status(self, data: Any) -> None:
        self.status = data["chat_status"]
        self.turns[data["turn_id"]] = data["status"]
        if data["status"] in ENDED:
            self.preview = ""

    def on_action_required(self, data: Any) -> None:
        self.asked.append(data)

    def on_notice(self, data: Any) -> None:
        self.notices.append(data)

    def on_retry(self, data: Any) -> None:
        self.retries.append(data["retry"])

    def on_chat_error(self, data: Any) -> None:
        self.errors.append(data["error"])

    def on_preview_reset(self, data: Any) -> None:
        self.preview = ""
        self.results = []
        self.resets += 1

    def on_history_reset(self, data: Any) -> None:
        self.on_preview_reset(data)
        self.messages.clear()
        self.queue = []
        self.restarts += 1

    def _follow_attempt(self, data: dict[str, Any]) -> None:
        turn, attempt = data.get("turn_id"), data.get("attempt", 0)
        if turn is not None and attempt:
            assert attempt >= self.attempt(turn), f"an overtaken attempt speaks: {data}"
            self._attempts[turn] = attempt


def text_of(message: Any) -> str:
    """The text of a message, its tool results' included."""
    parts = message["content"]
    return "".join(part.get("text") or part.get("result") or "" for part in parts)


def offered(message: Any) -> list[str]:
    """The servers' tools that an answer to /tools names: a built-in tool's name has no slug."""
    return [name for name in orjson.loads(text_of(message)) if "__" in name]
