"""Finds `model_intent` in a call's arguments while they arrive, one pass over the text."""

import re

import orjson

from chatd.core.text import bare
from chatd.core.tools import INTENT

MAX_INTENT = 100
"""Characters that are shown."""

_MAX_RAW = 4096
"""A text longer than this, as JSON, is no label."""

_PLAIN = re.compile(r'[^"\\]*')
_NEXT = re.compile(r'["{}\[\],:]')


class IntentScan:
    """Reads no piece twice. `over` once there is nothing more to find."""

    __slots__ = ("_depth", "_escaped", "_in_string", "_is_key", "_key", "_raw", "_size", "over")

    def __init__(self) -> None:
        self.over = False
        self._depth = 0
        self._is_key = False
        """The next string of the object itself is a key."""
        self._key = ""
        self._in_string = False
        self._escaped = False
        self._raw: list[str] | None = None
        """The string so far, where it matters: a key, or the intent."""
        self._size = 0

    def feed(self, text: str) -> str:
        """The next piece; answers the intent when it is complete, once, and is over then."""
        position, end = 0, len(text)
        while position < end and not self.over:
            if self._in_string:
                position, intent = self._string(text, position)
                if intent:
                    return intent
                continue
            found = _NEXT.search(text, position)
            if found is None:
                break
            position = found.end()
            self._mark(found[0])
        return ""

    def _mark(self, mark: str) -> None:
        match mark:
            case '"':
                self._in_string = True
                wanted = self._depth == 1 and (self._is_key or self._key == INTENT)
                self._raw, self._size = ([] if wanted else None), 0
            case "{" | "[":
                self._depth += 1
                self._is_key = self._depth == 1 and mark == "{"
                # A list, or a second value, is no object with an intent.
                self.over = self._depth == 1 and mark == "["
            case "}" | "]":
                self._depth -= 1
                self.over = self._depth <= 0
            case "," if self._depth == 1:
                self._is_key, self._key = True, ""
            case _:
                pass

    def _string(self, text: str, position: int) -> tuple[int, str]:
        """Reads on in a string: to its end or to the next escape."""
        if self._escaped:
            self._escaped = False
            self._keep(text[position])
            return position + 1, ""
        found = _PLAIN.match(text, position)
        assert found is not None, "the pattern matches nothing too"
        self._keep(found[0])
        position = found.end()
        if position == len(text):
            return position, ""
        if text[position] == "\\":
            self._escaped = True
            self._keep("\\")
            return position + 1, ""
        self._in_string = False
        return position + 1, self._ended()

    def _keep(self, piece: str) -> None:
        if self._raw is None:
            return
        self._size += len(piece)
        if self._size > _MAX_RAW:
            self._raw = None
        else:
            self._raw.append(piece)

    def _ended(self) -> str:
        """The string is complete: a key, the intent, or nothing to us."""
        raw, self._raw = self._raw, None
        if self._is_key:
            self._is_key = False
            self._key = _decoded(raw) if raw is not None else ""
            return ""
        if self._depth != 1 or self._key != INTENT:
            return ""
        self.over = True
        return _label(_decoded(raw)) if raw is not None else ""


def _decoded(raw: list[str]) -> str:
    try:
        return orjson.loads(f'"{"".join(raw)}"')
    except orjson.JSONDecodeError:
        return ""


def _label(text: str) -> str:
    """On one line, as a person sees it, cut."""
    text = " ".join(bare(text).split())
    return text if len(text) <= MAX_INTENT else text[: MAX_INTENT - 1] + "…"
