"""The bytes of OpenAI's chat completions: a whole answer, or the events of a streamed one."""

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from chatd.dev.scripted_model.answering import Content, Text
from chatd.dev.scripted_model.request import Request
from chatd.dev.scripted_model.script import Call

LAST_EVENT = b"data: [DONE]\n\n"
_PIECES_OF_ARGUMENTS = 4


class Wire:
    """One completion: its id, and the parts of an event that do not change."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._id = f"chatcmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())
        empty = self._event([{"index": 0, "delta": 0, "logprobs": None, "finish_reason": None}])
        self._before, _, self._after = empty.partition(b'"delta":0')

    def events(self, content: Content) -> Iterator[bytes]:
        """One event per word of a text, and several per tool call; not the end."""
        yield self._delta({"role": "assistant", "content": "" if _is_text(content) else None})
        if isinstance(content, Text):
            before = self._before + b'"delta":{"content":'
            after = b"}" + self._after
            for piece in content.pieces:
                yield before + orjson.dumps(piece) + after
        else:
            yield from self._call_events(content)

    def end(self, content: Content) -> bytes:
        """The last events."""
        choice: dict[str, Any] = {
            "index": 0,
            "delta": {},
            "logprobs": None,
            "finish_reason": _finish_reason(content),
        }
        end = self._event([choice])
        if self._request.include_usage:
            end += self._event([], usage=self._usage(content))
        return end + LAST_EVENT

    def whole(self, content: Content) -> bytes:
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        if isinstance(content, Text):
            message["content"] = "".join(content.pieces)
        else:
            message["tool_calls"] = list(_tool_calls(content))
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": _finish_reason(content),
        }
        return orjson.dumps(
            {**self._head("chat.completion"), "choices": [choice], "usage": self._usage(content)}
        )

    def _call_events(self, content: Call) -> Iterator[bytes]:
        for index, call in enumerate(_tool_calls(content)):
            arguments: str = call["function"]["arguments"]
            call["function"]["arguments"] = ""
            yield self._delta({"tool_calls": [{"index": index, **call}]})
            size = max(1, -(-len(arguments) // _PIECES_OF_ARGUMENTS))
            for start in range(0, len(arguments), size):
                piece = {"arguments": arguments[start : start + size]}
                yield self._delta({"tool_calls": [{"index": index, "function": piece}]})

    def _delta(self, delta: Mapping[str, Any]) -> bytes:
        return self._before + b'"delta":' + orjson.dumps(delta) + self._after

    def _event(
        self, choices: Sequence[Mapping[str, Any]], usage: Mapping[str, Any] | None = None
    ) -> bytes:
        event: dict[str, Any] = {**self._head("chat.completion.chunk"), "choices": choices}
        if self._request.include_usage:
            event["usage"] = usage
        return b"data: " + orjson.dumps(event) + b"\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._request.model,
            "system_fingerprint": "fp_scripted",
        }

    def _usage(self, content: Content) -> dict[str, Any]:
        """Made up, but the same for the same request: a word is a token, or four bytes are."""
        if isinstance(content, Text):
            completion = len(content.pieces)
        else:
            completion = sum(8 + len(call.arguments) // 4 for call in content.calls)
        return {
            "prompt_tokens": self._request.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self._request.prompt_tokens + completion,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }


def _tool_calls(content: Call) -> Iterator[dict[str, Any]]:
    for call in content.calls:
        function = {"name": call.name, "arguments": call.arguments}
        yield {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def _is_text(content: Content) -> bool:
    return isinstance(content, Text)


def _finish_reason(content: Content) -> str:
    return "stop" if isinstance(content, Text) else "tool_calls"
