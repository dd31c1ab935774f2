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

MAX_MEDIA = 8 * 1024 * 1024
"""Decoded bytes of one image or sound."""


def tool_result(raw: JsonObject, *, secrets: Collection[str] = ()) -> ToolResult:
    """The result's texts joined by newlines, whole, and its images and sounds.

    `secrets` are blotted out here, before anybody cuts the text: no piece of one is left.
    """
    if raw.get("resultType") not in (None, "complete"):
        return _not_finished(raw, secrets)
    reader = _Reader()
    content = raw.get("content")
    for block in cast(list[object], content) if isinstance(content, list) else []:
        reader.read(block)
    reader.add_structured(raw.get("structuredContent"))
    return ToolResult(
        text=without("\n".join(reader.texts), secrets),
        is_error=raw.get("isError") is True,
        media=tuple(reader.media),
    )


def _not_finished(raw: JsonObject, secrets: Collection[str]) -> ToolResult:
    kind = redacted(without(str(raw.get("resultType")), secrets), limit=50)
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
