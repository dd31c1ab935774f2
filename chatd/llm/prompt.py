"""Stored history as chat-completions messages that strict providers accept."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import groupby
from typing import Any, cast

import orjson

from chatd.core.budget import UNKNOWN_WINDOW
from chatd.core.messages import (
    FileReferencePart,
    HistoryMessage,
    Media,
    Part,
    ToolCallPart,
    ToolResultPart,
)
from chatd.llm.attached import Attached, fenced

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


def chat_messages(
    system: Sequence[str],
    history: Sequence[HistoryMessage],
    files: Mapping[str, bytes] | None = None,
    *,
    max_text: int = UNKNOWN_WINDOW,
) -> list[Message]:
    """One system message, then the history; reasoning is not sent.

    Every tool call is followed by exactly one result: a missing one is answered with INTERRUPTED,
    orphans and duplicates are left out. Arguments that are no JSON object are sent as `{}`, and the
    call's result then begins with what the model had written. Images and sound of a step's results
    follow its last result in one user message, since tool messages take text only.
    `files` are the bytes of attached files by id; a missing one becomes a note. `max_text`: bytes
    that the texts among one message's files may take.
    """
    prompt = _Prompt(Attached(files or {}, max_text))
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

    def __init__(self, attached: Attached) -> None:
        self._attached = attached
        self.messages: list[Message] = []
        self._open: dict[str, str] = {}
        self._uses = Counter[str]()
        """How many calls had this id: some providers begin from 0 again in every answer."""
        self._media: list[Message] = []

    def said(self, role: str, parts: Sequence[Part]) -> None:
        room = self._attached.text_room(parts)
        shown = [
            piece for part in parts if (piece := _said(part) or self._attached_piece(part, room))
        ]
        content = _joined(shown)
        if content:
            self.messages.append({"role": role, "content": content})

    def _attached_piece(self, part: Part, room: int) -> str | Message:
        return self._attached.shown(part, room) if part["type"] == "file" else ""

    def assistant(self, parts: Sequence[Part]) -> None:
        text = "".join(part["text"] for part in parts if part["type"] == "text")
        text = text if text.strip() else ""
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
            call_id = self._result(part["tool_call_id"], note + part["result"])
            media = part.get("media")
            if media:
                self._media += _shown(part, call_id, media)

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
        self._uses[part["tool_call_id"]] += 1
        return {
            "id": self._sent_id(part["tool_call_id"]),
            "type": "function",
            "function": {"name": _tool_name(part["tool_name"]), "arguments": arguments},
        }

    def _result(self, call_id: str, text: str) -> str:
        """Answers the id under which the call was sent."""
        sent_id = self._sent_id(call_id)
        self.messages.append({"role": "tool", "tool_call_id": sent_id, "content": text})
        return sent_id

    def _sent_id(self, call_id: str) -> str:
        """No two calls of a conversation may share one."""
        times = self._uses[call_id]
        return _call_id(call_id if times == 1 else f"{times} {call_id}".ljust(_MAX_ID + 1))


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


def _said(part: Part) -> str:
    if part["type"] == "text":
        return part["text"]
    return _quoted(part) if part["type"] == "file-reference" else ""


def _joined(pieces: Sequence[str | Message]) -> str | list[Message]:
    """One text if that is all there is; else content parts, texts between two others as one."""
    runs = [list(run) for _, run in groupby(pieces, key=lambda piece: isinstance(piece, str))]
    content: list[Message] = []
    for run in runs:
        texts = [piece for piece in run if isinstance(piece, str)]
        if texts and len(runs) == 1:
            return "\n\n".join(texts)
        content += [_text("\n\n".join(texts))] if texts else cast(list[Message], run)
    return content


def _quoted(part: FileReferencePart) -> str:
    lines = f"{part['start_line']}-{part['end_line']}"
    return f"File {part['file_name']}, lines {lines}:\n{fenced(part['content'])}"


def _shown(part: ToolResultPart, call_id: str, media: Sequence[Media]) -> list[Message]:
    call = f"tool call {call_id} ({part['tool_name']})"
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
