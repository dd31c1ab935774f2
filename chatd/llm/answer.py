"""Turns the chunks of one streamed answer into deltas: one list per network read."""

import json
from collections.abc import Callable, Collection
from typing import Any, cast

import orjson

from chatd.core.deltas import (
    Delta,
    Finished,
    IntentDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from chatd.core.messages import Usage
from chatd.core.text import clean
from chatd.llm.calls import Call, Calls
from chatd.llm.failures import ErrorFrame, StreamEnded, StreamMalformed
from chatd.llm.intents import IntentScan
from chatd.llm.sse import EventData

MAX_NOISE = 3
"""Events that are no JSON at all and are skipped; a damaged chunk has lost text and is not."""

_MAX_COUNT = 2**31 - 1
_WRONG_SHAPE = (AttributeError, TypeError, KeyError, IndexError, ValueError, OverflowError)

_Run = type[TextDelta] | type[ReasoningDelta] | Call


class Answer:
    """Feed it network reads. `reason` is set by the last chunk, `done` by `[DONE]`.

    `telling`: the tools whose calls say what they are for.
    """

    def __init__(self, new_id: Callable[[], str], telling: Collection[str] = ()) -> None:
        self.reason = ""
        self.done = False
        self._events = EventData()
        self._calls = Calls(new_id)
        self._telling = telling
        self._usage: Usage | None = None
        self._response_id = ""
        self._noise = 0
        self._out: list[Delta] = []
        self._run: _Run | None = None
        self._texts: list[str] = []

    def feed(self, read: bytes) -> list[Delta] | None:
        """What a read says; None when it held no event at all.

        Raises StreamMalformed, ErrorFrame.
        """
        events = self._events.feed(read)
        if not events:
            return None
        return self._take(events)

    def whole(self, body: bytes) -> list[Delta]:
        """An answer that is not streamed, from servers that ignore `stream`."""
        return self._take([body])

    def end(self) -> list[Delta]:
        """The rest and Finished. Raises StreamEnded when the answer is not complete."""
        if not self.done:
            self._take(self._events.end())
        if not self.reason and not self.done:
            raise StreamEnded
        for call in self._calls.all:
            if not call.announced:
                self._announce(call, "".join(call.pieces))
        self._flush(final=True)
        reason = self.reason or ("tool_calls" if self._calls.all else "stop")
        self._out.append(Finished(clean(reason), self._usage, clean(self._response_id)))
        return self._handed_out()

    def _take(self, events: list[bytes]) -> list[Delta]:
        for event in events:
            if not self.done:
                self._event(event)
        self._flush(final=False)
        return self._handed_out()

    def _handed_out(self) -> list[Delta]:
        out, self._out = self._out, []
        return out

    def _event(self, data: bytes) -> None:
        chunk = _parse(data)
        if chunk is None:
            self._not_json(data.strip())
            return
        try:
            self._chunk(chunk)
        except (
            AttributeError,
            TypeError,
            KeyError,
            IndexError,
            ValueError,
            OverflowError,
        ) as error:
            raise StreamMalformed("a chunk has an unknown shape") from error

    def _not_json(self, data: bytes) -> None:
        if data.startswith(b"[DONE]"):
            self.done = True
            return
        self._noise += bool(data)
        if data.startswith(b"{") or self._noise > MAX_NOISE:
            raise StreamMalformed("a chunk is not JSON")

    def _chunk(self, chunk: dict[str, Any]) -> None:
        if chunk.get("error") or chunk.get("object") == "error":
            raise ErrorFrame(chunk.get("error") or chunk)
        if not self._response_id:
            self._response_id = str(chunk.get("id") or "")
        if chunk.get("usage"):
            self._usage = _usage(chunk["usage"])
        choices = chunk.get("choices")
        if not choices or (choices[0].get("index") or 0) != 0:
            return
        choice = choices[0]
        # A server that ignores `stream` sends a message.
        delta = choice.get("delta") or choice.get("message")
        if delta:
            self._delta(delta)
        if choice.get("finish_reason"):
            self.reason = str(choice["finish_reason"])

    def _delta(self, delta: dict[str, Any]) -> None:
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        if reasoning and isinstance(reasoning, str):
            self._say(ReasoningDelta, reasoning)
        content = delta.get("content")
        if content:
            if isinstance(content, str):
                self._say(TextDelta, content)
            else:
                self._content_parts(content)
        if delta.get("refusal"):
            self._say(TextDelta, delta["refusal"])
        for entry in delta.get("tool_calls") or ():
            self._tool_call(*self._calls.place(entry))

    def _content_parts(self, parts: list[dict[str, Any]]) -> None:
        """Mistral's form: text and thinking as lists."""
        for part in parts:
            if part.get("type") == "text":
                self._say(TextDelta, part.get("text") or "")
            elif part.get("type") == "thinking":
                for thought in part.get("thinking") or ():
                    self._say(ReasoningDelta, thought.get("text") or "")

    def _tool_call(self, call: Call, arguments: str) -> None:
        if call.announced:
            self._say(call, arguments)
        elif call.name:
            self._announce(call, "".join(call.pieces))

    def _announce(self, call: Call, arguments: str) -> None:
        self._flush(final=True)
        self._out.append(ToolCallDelta(call.index, clean(call.id), clean(call.name), ""))
        if call.name in self._telling:
            call.intent = IntentScan()
        call.announced = True
        self._say(call, arguments)

    def _say(self, run: _Run, text: str) -> None:
        if run is not self._run:
            self._flush(final=True)
            self._run = run
        if type(text) is not str:
            raise TypeError
        self._texts.append(text)

    def _flush(self, *, final: bool) -> None:
        """Half a surrogate pair waits for its other half, unless nothing more follows."""
        if not self._texts:
            return
        text = "".join(self._texts)
        self._texts.clear()
        if not final and "\ud800" <= text[-1:] <= "\udbff":
            self._texts.append(text[-1])
            text = text[:-1]
        if text:
            self._hand_on(clean(text))

    def _hand_on(self, text: str) -> None:
        run = self._run
        if not isinstance(run, Call):
            if run is not None:
                self._out.append(run(text))
            return
        last = self._out[-1] if self._out else None
        if isinstance(last, ToolCallDelta) and last.index == run.index:
            joined = last.arguments + text
            self._out[-1] = ToolCallDelta(last.index, last.id, last.name, joined)
        else:
            self._out.append(ToolCallDelta(run.index, "", "", text))
        if run.intent is not None:
            self._look(run, run.intent, text)

    def _look(self, call: Call, scan: IntentScan, text: str) -> None:
        intent = scan.feed(text)
        if intent:
            self._out.append(IntentDelta(call.index, intent))
        if scan.over:
            call.intent = None


def _parse(data: bytes) -> dict[str, Any] | None:
    """None when it is no JSON object. The second parser takes lone surrogates and bad UTF-8."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            value = json.loads(data.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return None
    return cast(dict[str, Any], value) if isinstance(value, dict) else None


def _usage(said: dict[str, Any]) -> Usage:
    prompt: dict[str, Any] = said.get("prompt_tokens_details") or {}
    completion: dict[str, Any] = said.get("completion_tokens_details") or {}
    read = _count(prompt.get("cached_tokens") or said.get("cache_read_input_tokens"))
    written = _count(
        prompt.get("cache_write_tokens")
        or prompt.get("cache_creation_tokens")
        or said.get("cache_creation_input_tokens")
    )
    entered = _count(said.get("prompt_tokens"))
    answered = _count(said.get("completion_tokens"))
    return Usage(
        input_tokens=entered,
        output_tokens=answered,
        total_tokens=_count(said.get("total_tokens")) or entered + answered,
        reasoning_tokens=_count(completion.get("reasoning_tokens")),
        cache_creation_tokens=written,
        cache_read_tokens=read,
    )


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return min(max(int(value), 0), _MAX_COUNT)
