"""Stored history as chat-completions messages that strict providers accept."""

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import orjson

from chatd.core.messages import (
    FileReferencePart,
    HistoryMessage,
    Media,
    Part,
    ToolCallPart,
    ToolResultPart,
)

INTERRUPTED = "tool call was interrupted before it produced a result"

_MAX_ID = 40
_MAX_NAME = 64
_MAX_BAD_ARGUMENTS = 1000
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_-]")
_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_SOUNDS = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}

Message = dict[str, Any]


def chat_messages(system: Sequence[str], history: Sequence[HistoryMessage]) -> list[Message]:
    """One system message, then the history; reasoning is not sent.

    Every tool call is followed by exactly one result: a missing one is answered with INTERRUPTED,
    orphans and duplicates are left out. Arguments that are no JSON object are sent as `{}`, and the
    call's result then begins with what the model had written. Images and sound of a step's results
    follow its last result in one user message, since tool messages take text only.
    """
    prompt = _Prompt()
    instructions = "\n\n".join(text for text in system if text)
    if instructions:
        prompt.messages.append({"role": "system", "content": instructions})
    for message in history:
        if message["role"] == "tool":
            prompt.results(message["content"])
            continue
        prompt.close_step()
        if message["role"] == "assistant":
            prompt.assistant(message["content"])
        else:
            prompt.said(message["role"], message["content"])
    prompt.close_step()
    return prompt.messages


class _Prompt:
    """The messages so far; `open` holds the calls of the last step that have no result yet."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._open: dict[str, str] = {}
        self._media: list[Message] = []

    def said(self, role: str, parts: Sequence[Part]) -> None:
        texts = [
            part["text"] if part["type"] == "text" else _quoted(part)
            for part in parts
            if part["type"] == "text" or part["type"] == "file-reference"
        ]
        content = "\n\n".join(text for text in texts if text)
        if content:
            self.messages.append({"role": role, "content": content})

    def assistant(self, parts: Sequence[Part]) -> None:
        text = "".join(part["text"] for part in parts if part["type"] == "text")
        calls = [
            self._call(part)
            for part in parts
            if part["type"] == "tool-call" and part["tool_call_id"] not in self._open
        ]
        if calls:
            self.messages.append(
                {"role": "assistant", "content": text or None, "tool_calls": calls}
            )
        elif text:
            self.messages.append({"role": "assistant", "content": text})

    def results(self, parts: Sequence[Part]) -> None:
        for part in parts:
            if part["type"] != "tool-result":
                continue
            note = self._open.pop(part["tool_call_id"], None)
            if note is None:
                continue
            self._result(part["tool_call_id"], note + part["result"])
            media = part.get("media")
            if media:
                self._media += _shown(part, media)

    def close_step(self) -> None:
        """Answer what is still open, then show the step's media."""
        for call_id, note in self._open.items():
            self._result(call_id, note + INTERRUPTED)
        self._open.clear()
        if self._media:
            self.messages.append({"role": "user", "content": self._media})
            self._media = []

    def _call(self, part: ToolCallPart) -> Message:
        arguments, note = _arguments(part["args"])
        self._open[part["tool_call_id"]] = note
        return {
            "id": _call_id(part["tool_call_id"]),
            "type": "function",
            "function": {"name": _tool_name(part["tool_name"]), "arguments": arguments},
        }

    def _result(self, call_id: str, text: str) -> None:
        self.messages.append({"role": "tool", "tool_call_id": _call_id(call_id), "content": text})


def _arguments(args: str) -> tuple[str, str]:
    """The arguments to send, and what the result must then say about them."""
    if not args.strip():
        return "{}", ""
    try:
        if isinstance(orjson.loads(args), dict):
            return args, ""
    except orjson.JSONDecodeError:
        pass
    written = args[:_MAX_BAD_ARGUMENTS]
    return "{}", f"The arguments of this call were not a JSON object: {written}\n\n"


def _call_id(call_id: str) -> str:
    """OpenAI takes 40 characters, while other providers make ids of any length."""
    if 0 < len(call_id) <= _MAX_ID:
        return call_id
    return f"call_{sha256(call_id.encode()).hexdigest()[:32]}"


def _tool_name(name: str) -> str:
    """A name a model made up may hold anything, and would spoil every later request."""
    if _NAME.fullmatch(name):
        return name
    return _NOT_IN_NAME.sub("_", name)[:_MAX_NAME] or "unknown"


def _quoted(part: FileReferencePart) -> str:
    fence = "```"
    while fence in part["content"]:
        fence += "`"
    lines = f"{part['start_line']}-{part['end_line']}"
    return f"File {part['file_name']}, lines {lines}:\n{fence}\n{part['content']}\n{fence}"


def _shown(part: ToolResultPart, media: Sequence[Media]) -> list[Message]:
    call = f"tool call {_call_id(part['tool_call_id'])} ({part['tool_name']})"
    return [_text(f"Returned by {call}:"), *(_medium(item) for item in media)]


def _medium(item: Media) -> Message:
    kind = item["media_type"].partition(";")[0].strip().lower()
    if kind in _IMAGES:
        return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{item['data']}"}}
    if kind in _SOUNDS:
        return {
            "type": "input_audio",
            "input_audio": {"data": item["data"], "format": _SOUNDS[kind]},
        }
    return _text(f"[{kind or 'a file'} that cannot be shown to you]")


def _text(text: str) -> Message:
    return {"type": "text", "text": text}
