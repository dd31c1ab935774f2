"""From a raw `tools/call` result to what the model reads; pure."""

import base64
import binascii
import json
from collections.abc import Collection
from typing import cast

import orjson

from chatd.core.messages import Media
from chatd.core.text import clean
from chatd.core.tools import JsonObject, ToolResult
from chatd.mcp.errors import redacted, without

UNKNOWN_WINDOW = 64 * 1024
FLOOR = 16 * 1024
MARKER_ROOM = 256
MAX_MEDIA = 8 * 1024 * 1024
"""Decoded bytes of one image or sound."""


def budget(context_limit: int) -> int:
    """Bytes of text that one tool result may have, given the model's window in tokens (0: unknown).

    A third of the window at three bytes a token.
    """
    if context_limit <= 0:
        return UNKNOWN_WINDOW
    return max(context_limit // 3 * 3, FLOOR)


def cap(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8: the first two thirds, the tail, and how much is missing."""
    data = text.encode()
    if len(data) <= limit:
        return text
    room = limit - MARKER_ROOM
    head = data[: room * 2 // 3].decode(errors="ignore")
    tail = data[len(data) - (room - room * 2 // 3) :].decode(errors="ignore")
    removed = len(data) - len(head.encode()) - len(tail.encode())
    marker = f"[… {removed} of {len(data)} bytes of this result were removed here …]"
    return f"{head}\n{marker}\n{tail}"


def tool_result(raw: JsonObject, *, limit: int, secrets: Collection[str] = ()) -> ToolResult:
    """The result's texts joined by newlines and its images and sounds.

    `limit` is in bytes of text. `secrets` are blotted out before the text is cut, so that no piece
    of one is left.
    """
    if raw.get("resultType") not in (None, "complete"):
        return _not_finished(raw)
    reader = _Reader()
    content = raw.get("content")
    for block in cast(list[object], content) if isinstance(content, list) else []:
        reader.read(block)
    reader.add_structured(raw.get("structuredContent"))
    text = without("\n".join(reader.texts), secrets)
    capped = cap(text, limit)
    return ToolResult(
        text=capped,
        is_error=raw.get("isError") is True,
        media=tuple(reader.media),
        cut_from=0 if capped is text else len(text.encode()),
    )


def _not_finished(raw: JsonObject) -> ToolResult:
    kind = redacted(str(raw.get("resultType")), limit=50)
    text = f"The tool answered with {kind!r}, which is not supported here. It did not finish."
    return ToolResult(text=text, is_error=True, outcome="failed")


class _Reader:
    """Reads content blocks one by one; whatever cannot be shown becomes a note in its place."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.media: list[Media] = []
        self._said: list[str] = []

    def read(self, block: object) -> None:
        if not isinstance(block, dict):
            self.texts.append("[unsupported content]")
            return
        item = cast(JsonObject, block)
        match item.get("type"):
            case "text":
                self._said.append(_string(item, "text"))
                self.texts.append(self._said[-1])
            case "image" | "audio" as kind:
                self._read_media(kind, _string(item, "mimeType"), item.get("data"))
            case "resource":
                self._read_resource(item.get("resource"))
            case "resource_link":
                self.texts.append(_link(item))
            case kind:
                self.texts.append(f"[unsupported content type: {redacted(str(kind), limit=50)}]")

    def add_structured(self, value: object) -> None:
        """Servers should send it as text too: then it is not shown twice."""
        if value is None or _carried(value, self._said):
            return
        self.texts.append(clean(_json(value)))

    def _read_media(self, kind: str, media_type: str, data: object) -> None:
        if not isinstance(data, str) or not data or not media_type:
            return
        if not media_type.lower().startswith(f"{kind}/"):
            self.texts.append(f"[{kind} of unsupported type {redacted(media_type, limit=50)}]")
            return
        compact = "".join(data.split())
        size = _decoded_size(compact)
        if size is None:
            self.texts.append(f"[{kind} decode error: not valid base64]")
        elif size > MAX_MEDIA:
            self.texts.append(f"[{kind} too large: {size} bytes]")
        else:
            self.media.append(Media(media_type=media_type.lower(), data=compact))

    def _read_resource(self, resource: object) -> None:
        if not isinstance(resource, dict):
            self.texts.append("[unsupported content]")
            return
        item = cast(JsonObject, resource)
        media_type = _string(item, "mimeType")
        kind = media_type.partition("/")[0].lower()
        if isinstance(item.get("text"), str):
            self.texts.append(_string(item, "text"))
        elif kind in ("image", "audio"):
            self._read_media(kind, media_type, item.get("blob"))
        else:
            self.texts.append(f"[binary resource: {_string(item, 'uri')} ({media_type})]")


def _string(item: JsonObject, key: str) -> str:
    value = item.get(key)
    return clean(value) if isinstance(value, str) else ""


def _link(item: JsonObject) -> str:
    description = _string(item, "description")
    tail = f": {description}" if description else ""
    return f"[resource: {_string(item, 'name')} ({_string(item, 'uri')}){tail}]"


def _decoded_size(data: str) -> int | None:
    try:
        return len(base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError):
        return None


def _carried(value: object, texts: list[str]) -> bool:
    """True when the texts already say it: one of them, or all of them as the items of a list.

    Servers made with the Python SDK wrap what is not an object as `{"result": …}`.
    """
    wanted = {_json(value, sort_keys=True)}
    if isinstance(value, dict) and cast(JsonObject, value).keys() == {"result"}:
        wanted.add(_json(cast(JsonObject, value)["result"], sort_keys=True))
    parsed = [_parsed(text) for text in texts]
    said = {_json(item, sort_keys=True) for item in (*parsed, *texts, parsed, texts)}
    return not wanted.isdisjoint(said)


def _parsed(text: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _json(value: object, *, sort_keys: bool = False) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else 0).decode()
    except TypeError:
        # Integers beyond 64 bits.
        return json.dumps(value, sort_keys=sort_keys)
