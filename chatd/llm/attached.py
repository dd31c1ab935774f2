"""A file of a user's message as the model gets it: a picture, a document, or quoted text."""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from chatd.core.budget import FLOOR, UNKNOWN_WINDOW, cap
from chatd.core.files import IMAGES, PDF, TEXTS
from chatd.core.messages import FilePart, Part

Message = dict[str, Any]

_BACKTICKS = re.compile("`{3,}")


class Attached:
    """The files of a chat's messages; `max_text`: bytes of text that one message's may take."""

    def __init__(self, files: Mapping[str, bytes], max_text: int = UNKNOWN_WINDOW) -> None:
        self._files = files
        self._max_text = max_text

    def text_room(self, parts: Sequence[Part]) -> int:
        """Bytes for each of the message's texts: an equal share, so that none hides another."""
        texts = sum(part["type"] == "file" and part["media_type"] in TEXTS for part in parts)
        return max(self._max_text // max(texts, 1), FLOOR // 4)

    def shown(self, part: FilePart, room: int) -> str | Message:
        """Text, or a content part of a user message."""
        data, kind = self._files.get(part["file_id"]), part["media_type"]
        if data is None:
            return f"[{_called(part)} is not available any more or too large to be shown]"
        if kind in TEXTS:
            text = data.decode("utf-8-sig", "replace")
            return f"{_called(part)}:\n{fenced(cap(text, room, what='file'))}"
        url = f"data:{kind};base64,{b64encode(data).decode()}"
        if kind in IMAGES:
            return {"type": "image_url", "image_url": {"url": url}}
        if kind == PDF:
            return {"type": "file", "file": {"filename": part["name"], "file_data": url}}
        return f"[{_called(part)} cannot be shown to you]"


def fenced(text: str) -> str:
    """The text as a Markdown code block that nothing in it can end."""
    longest = max((len(run) for run in _BACKTICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def _called(part: FilePart) -> str:
    return f"File {part['name']} ({part['media_type']}, {part['size']} bytes)"
