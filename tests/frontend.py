"""What a frontend makes of a chat's events; complains when they break what the stream promises."""

from dataclasses import dataclass, field
from typing import Any

import orjson

from chatd.core.turns import ENDED


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event; `id` is the cursor after it."""

    id: str
    name: str
    data: dict[str, Any]


@dataclass
class Preview:
    """The message in flight: pieces joined by kind, calls and results by their id."""

    text: str = ""
    reasoning: str = ""
    calls: dict[str, str] = field(default_factory=dict[str, str])
    results: dict[str, Any] = field(default_factory=dict[str, Any])

    def add(self, role: str, part: Any) -> None:
        match part["type"]:
            case "text":
                self.text += part["text"]
            case "reasoning":
                self.reasoning += part["text"]
            case "tool-call":
                call_id = part["tool_call_id"]
                self.calls[call_id] = self.calls.get(call_id, "") + part["args_delta"]
            case _:
                assert (role, part["type"]) == ("tool", "tool-result")
                self.results[part["tool_call_id"]] = part

    def check(self, message: Any) -> None:
        """What was shown is how the stored message begins."""
        kept = Preview()
        for part in message["content"]:
            if part["type"] == "tool-call":
                kept.calls[part["tool_call_id"]] = part["args"]
            else:
                kept.add(message["role"], part)
        if message["role"] == "tool":
            for call_id, part in kept.results.items():
                assert self.results.get(call_id, part) == part
        else:
            assert kept.text.startswith(self.text), (self.text, kept.text)
            assert kept.reasoning.startswith(self.reasoning)
            for call_id, args in self.calls.items():
                assert kept.calls[call_id].startswith(args)


class View:
    """Messages, queue, status and preview."""

    def __init__(self) -> None:
        self.messages: dict[int, Any] = {}
        self.has_more: bool | None = None
        self.queue: list[Any] = []
        self.status = ""
        self.turns: dict[str, str] = {}
        self.preview = Preview()
        self.shown: list[str] = []
        """Every preview text there ever was."""
        self.numbers: dict[tuple[str, int], int] = {}
        """The last `seq` by turn and attempt."""

    def take(self, event: Event) -> None:
        """Raises AssertionError."""
        data = event.data
        self._follow(data)
        match event.name:
            case "message":
                self._message(data)
            case "message_part":
                self.preview.add(data["role"], data["part"])
                self.shown.append(self.preview.text)
            case "queue_update":
                self.queue = data["queued_messages"]
            case "turn":
                turn = data["turn"]
                self.turns[turn["id"]] = turn["status"]
            case "status":
                self.status = data["chat_status"]
                self.turns[data["turn_id"]] = data["status"]
                if data["status"] in ENDED:
                    assert self.preview == Preview(), "a preview outlived its turn"
            case _:
                self._other(event.name, data)

    def state(self) -> bytes:
        """What a frontend keeps, as JSON: compared byte by byte."""
        kept = [self.messages[message_id] for message_id in sorted(self.messages)]
        state = {"messages": kept, "queue": self.queue, "status": self.status}
        return orjson.dumps(state | {"has_more": self.has_more})

    def _other(self, name: str, data: Any) -> None:
        if name == "history_reset":
            self.__init__()
        elif name == "preview_reset":
            self.preview = Preview()
            if not data["seq"]:  # not the worker's: what follows may be told again
                self.numbers = dict.fromkeys(self.numbers, 0)
        else:
            assert name in {"notice", "retry", "chat_error"}, name

    def _message(self, data: Any) -> None:
        message = data["message"]
        self.has_more = data.get("has_more", self.has_more)
        assert self.messages.setdefault(message["id"], message) == message, "a message changed"
        assert message["id"] == max(self.messages), "a message came out of order"
        if message["role"] == "user":
            return
        self.preview.check(message)
        if message["role"] == "assistant":
            self.preview = Preview()
        else:
            self.preview.results.pop(message["content"][0]["tool_call_id"], None)

    def _follow(self, data: Any) -> None:
        """Live events of a turn have numbers that grow, and no overtaken attempt speaks."""
        turn, attempt, seq = data.get("turn_id"), data.get("attempt", 0), data.get("seq", 0)
        if turn is None or not attempt:
            return
        assert not any(t == turn and a > attempt for t, a in self.numbers), data
        last = self.numbers.get((turn, attempt), 0)
        assert not seq or seq > last, (last, data)
        self.numbers[turn, attempt] = max(seq, last)
