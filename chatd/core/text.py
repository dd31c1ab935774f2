"""Text that PostgreSQL and JSON can hold: the one place that cleans what others send."""

import re
from typing import cast

REPLACEMENT = "\ufffd"
_NUL = "\x00"

# Controls, zero-width characters, fillers, direction overrides and tags: a person who reviews the
# text does not see what they do to it. All that Unicode calls ignorable, but joiners and selectors.
INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b"
    "\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e00ff\U000e01f0-\U000e0fff]"
)

_ORDERS = re.compile("\x1b\\[[0-?]*[ -/]*[@-~]")
"""To a terminal: colours, and moves that hide what was written before."""

_SELECTOR = "\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
_JOINER = "\u200c\u200d"
_ROW = re.compile(f"[{_SELECTOR}{_JOINER}]{{3,}}|[{_SELECTOR}]{{2,}}|[{_JOINER}]{{2,}}")
"""One selects how a character looks, or joins it to the next, as in flags; a row of them is hidden
text."""


def is_line(text: str) -> bool:
    """Whether it is one line of what a reader sees."""
    return not (INVISIBLE.search(text) or "\n" in text or "\t" in text)


def holds(text: str) -> bool:
    """False when the text has a NUL or a lone surrogate, which neither UTF-8 nor jsonb can hold."""
    if _NUL in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def clean(text: str) -> str:
    """The text with U+FFFD in place of every NUL and lone surrogate."""
    if holds(text):
        return text
    return (
        text.replace(_NUL, REPLACEMENT)
        .encode("utf-16", "surrogatepass")
        .decode("utf-16", "replace")
    )


def bare(text: str) -> str:
    """The text as a person sees it, to be kept: clean, without anything invisible."""
    return _ROW.sub("", INVISIBLE.sub("", _ORDERS.sub("", clean(text))))


def clean_json(value: object) -> object:
    """The same for every string, keys too, of a JSON value."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        items = cast(dict[object, object], value).items()
        return {clean(str(key)): clean_json(item) for key, item in items}
    if isinstance(value, list | tuple):
        return [clean_json(item) for item in cast(list[object], value)]
    return value
