"""Reads what any model error says: status, words, text without secrets, Retry-After."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, cast

import openai

from chatd.core.text import clean
from chatd.llm.failures import ErrorFrame

MAX_DETAIL = 500
_MIN_SECRET = 4
_GONE = "[redacted]"

_QUERY = re.compile(r"(https?://[^\s?#\"'<>]+)\?[^\s\"'<>]*")
_USERINFO = re.compile(r"(https?://)[^/\s@]+@")
_NAMED = re.compile(
    r"(?i)((?:api[-_ ]?key|access[-_ ]?token|token|secret|password|authorization)"
    r"(?: provided)?[\"']?\s*[:=]\s*)[\"']?(?:bearer\s+|basic\s+)?[^\s\"',}]+"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/*=-]{4,}")
_SHAPED = re.compile(
    r"\b(?:(?:sk|pk|rk|gsk|xai|key)[-_][A-Za-z0-9_*.-]{3,}|AIza[A-Za-z0-9_-]{10,})"
)


@dataclass(frozen=True, slots=True)
class Signal:
    """One failure as the classification table reads it; `words` is lower case."""

    error: BaseException
    status: int
    words: str
    message: str


def read_signal(error: BaseException) -> Signal:
    """`status` is 0 when no HTTP answer came."""
    status = error.status_code if isinstance(error, openai.APIStatusError) else 0
    if isinstance(error, openai.APIStatusError):
        code, kind, message = _said(error.body)
    elif isinstance(error, ErrorFrame):
        code, kind, message = _said(error.payload)
        if code.isdigit():
            status = int(code)
    else:
        code, kind, message = "", "", str(error)
    if not message and not status:
        message = str(error) or type(error).__name__
    return Signal(error, status, f"{code} {kind} {message}".lower(), message)


def detail(signal: Signal, secrets: Sequence[str]) -> str:
    """At most 500 characters; secrets go before the text is cut, so that none shows half."""
    parts = (f"HTTP {signal.status}" if signal.status else "", signal.message)
    return redact(": ".join(part for part in parts if part), secrets)[:MAX_DETAIL]


def redact(text: str, secrets: Sequence[str] = ()) -> str:
    """Without the given secrets, what looks like a key, and the query of any URL."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _MIN_SECRET:
            text = text.replace(secret, _GONE)
    text = _QUERY.sub(r"\1", text)
    text = _USERINFO.sub(r"\1", text)
    text = _NAMED.sub(rf"\1{_GONE}", text)
    text = _BEARER.sub(rf"\1 {_GONE}", text)
    return clean(_SHAPED.sub(_GONE, text))


def retry_after(error: BaseException) -> float | None:
    """Seconds the provider asks us to wait (RFC 9110, 10.2.3); a date counts from its own clock."""
    if not isinstance(error, openai.APIStatusError):
        return None
    headers = error.response.headers
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        seconds = _number(headers.get(name))
        if seconds is not None:
            return seconds * unit
    try:
        until = parsedate_to_datetime(headers["retry-after"])
        return max((until - parsedate_to_datetime(headers["date"])).total_seconds(), 0.0)
    except (KeyError, ValueError, TypeError):
        return None


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _said(body: object) -> tuple[str, str, str]:
    """Code, type and message in any of the shapes compatible servers send."""
    if isinstance(body, list) and body:
        return _said(cast(list[object], body)[0])
    if isinstance(body, str):
        # A page of HTML says nothing that its status does not.
        return "", "", "" if "<" in body[:100] else body
    if not isinstance(body, dict):
        return "", "", ""
    said = cast(dict[str, Any], body)
    inner = said.get("error")
    if isinstance(inner, dict | str) and inner:
        return _said(cast(object, inner))
    message = said.get("message") or said.get("detail") or said.get("msg") or ""
    return tuple(
        value if isinstance(value, str) else str(value)
        for value in (said.get("code") or "", said.get("type") or "", message)
    )  # pyright: ignore[reportReturnType]
