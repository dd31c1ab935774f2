"""Taking secrets out of what is logged, stored as an error or shown: by name and by look."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import cast

REDACTED = "[redacted]"
_DEEPEST = 12

_NAME = re.compile(
    r"(?:token|secret|password|passwd|passphrase|authorization|cookie|credentials?|_?apikey"
    r"|[_-]key|^key|^keys|_keys|^code|code_verifier|custom_headers)$",
    re.IGNORECASE,
)

_HINT = re.compile(
    r"://|chatds?_|sk-|eyJ|[?&](?:code|key|sig)|bearer|token|secret|passw|passphrase|credential"
    r"|key|authorization|cookie|verifier",
    re.IGNORECASE,
)

_NAMED = (
    r"(?:token|secret|password|passwd|passphrase|credentials?|api[_-]?key|private[_-]?key"
    r"|authorization|code_verifier|(?<=[?&])(?:code|key|sig|signature))[\"']?\s*[:=]\s*"
)

_LOOKS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A URL's user and password.
    (re.compile(r"(://)[^\s/@?#]+@"), rf"\1{REDACTED}@"),
    (re.compile(r"((?:set-)?cookie[\"']?\s*[:=]\s*)[^\r\n]+", re.IGNORECASE), rf"\1{REDACTED}"),
    (re.compile(r"\b(bearer)\s+[\w.~+/=-]{6,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    (re.compile(rf"({_NAMED}\")(?:[^\"\\]|\\.)*", re.IGNORECASE), rf"\1{REDACTED}"),
    (re.compile(rf"({_NAMED}')(?:[^'\\]|\\.)*", re.IGNORECASE), rf"\1{REDACTED}"),
    (
        re.compile(
            rf"({_NAMED})(?!\[redacted)(?:(?:basic|digest|token)\s+)?[^\s\"',;&}})\]]+",
            re.IGNORECASE,
        ),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"\b(chatds?_)[\w-]{16,}(?:\.[\w-]{16,})?"), rf"\1{REDACTED}"),
    (re.compile(r"\bsk-[\w-]{8,}"), f"sk-{REDACTED}"),
    # A JSON web token.
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), REDACTED),
)


@lru_cache(maxsize=1024)
def secret_name(name: str) -> bool:
    """Whether a field of this name holds a secret."""
    return _NAME.search(name) is not None


def redact_text(text: str) -> str:
    """The text without anything that looks like a secret."""
    if _HINT.search(text) is None:
        return text
    for pattern, replacement in _LOOKS:
        text = pattern.sub(replacement, text)
    return text


def redact(value: object, *, depth: int = 0) -> object:
    """The same for every text in a value; what is neither data nor text goes by its `str`."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return redact_text(value)
    if depth > _DEEPEST:
        return "…"
    if isinstance(value, Mapping):
        items = cast(Mapping[object, object], value).items()
        return {str(key): _redact_field(str(key), item, depth) for key, item in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item, depth=depth + 1) for item in cast(list[object], value)]
    return redact_text(str(value))


def _redact_field(name: str, value: object, depth: int) -> object:
    if value and secret_name(name) and not isinstance(value, bool):
        return REDACTED
    return redact(value, depth=depth + 1)
