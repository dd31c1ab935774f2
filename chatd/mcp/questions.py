"""A server's questions to people, out of its raw JSON: checked, bounded, and fit to be shown."""

import json
from collections.abc import Collection
from typing import cast
from urllib.parse import urlsplit

import orjson

from chatd.core.asking import Elicitation, InputRequired
from chatd.core.text import holds
from chatd.core.tools import JsonObject
from chatd.mcp.errors import json_without, redacted, without
from chatd.mcp.listing import visible

MAX_ASKED = 64 * 1024
"""Bytes of one question, or of all questions of one answer and its state."""
MAX_REQUESTS = 16
MAX_MESSAGE = 4000
MAX_URL = 4096
MAX_ID = 256

_ELICIT = "elicitation/create"


class Unaskable(Exception):
    """A question that nobody is shown; the message says why, in words that hold no secret."""


def question(params: JsonObject, secrets: Collection[str]) -> Elicitation:
    """Raises Unaskable."""
    if _size(params) > MAX_ASKED:
        raise Unaskable("a question that is too large")
    message = params.get("message")
    if not isinstance(message, str):
        raise Unaskable("a question without a message")
    message = visible(without(message, secrets), MAX_MESSAGE)
    match params.get("mode", "form"):
        case "form":
            schema = _schema(params.get("requestedSchema"), secrets)
            return Elicitation("form", message, schema=schema)
        case "url":
            url = _url(params.get("url"), secrets)
            return Elicitation("url", message, url=url, elicitation_id=_id(params))
        case _:
            raise Unaskable("a question of an unknown kind")


def input_required(raw: JsonObject, secrets: Collection[str]) -> InputRequired:
    """The `requests` are empty where the server only wants to be asked again with its state.

    Raises Unaskable.
    """
    requests, state = raw.get("inputRequests") or {}, raw.get("requestState")
    if not isinstance(requests, dict) or not isinstance(state, str | None):
        raise Unaskable("input in a way that cannot be read")
    if not requests and state is None:
        raise Unaskable("input without saying which")
    asked = cast(JsonObject, requests)
    if len(asked) > MAX_REQUESTS or _size(asked) + len((state or "").encode()) > MAX_ASKED:
        raise Unaskable("more input than can be kept")
    if not all(holds(text) for text in (*asked, state or "")):
        # Both go back unchanged, so neither can be mended.
        raise Unaskable("input under a name or with a state that cannot be kept")
    return InputRequired({key: _request(item, secrets) for key, item in asked.items()}, state)


def pages_to_visit(data: object) -> list[JsonObject]:
    """The questions in the error of a server that wants its user to go somewhere first, raw."""
    listed = cast(JsonObject, data).get("elicitations") if isinstance(data, dict) else None
    pages = cast(list[object], listed) if isinstance(listed, list) else []
    return [cast(JsonObject, page) for page in pages[:MAX_REQUESTS] if isinstance(page, dict)]


def _request(raw: object, secrets: Collection[str]) -> JsonObject:
    request = cast(JsonObject, raw) if isinstance(raw, dict) else {}
    method, params = request.get("method"), request.get("params")
    if method != _ELICIT:
        said = without(f"input by {method!r}", secrets)
        raise Unaskable(redacted(f"{said}, which is not supported here", limit=100))
    if not isinstance(params, dict):
        raise Unaskable("a question without a message")
    asked = question(cast(JsonObject, params), secrets)
    what = {"requestedSchema": asked.schema} if asked.mode == "form" else {"url": asked.url}
    return {"method": _ELICIT, "params": {"mode": asked.mode, "message": asked.message, **what}}


def _schema(raw: object, secrets: Collection[str]) -> JsonObject:
    schema = cast(JsonObject, raw) if isinstance(raw, dict) else {}
    if schema.get("type") != "object" or not isinstance(schema.get("properties"), dict):
        raise Unaskable("a form that cannot be read")
    safe = cast(JsonObject, json_without(schema, secrets))
    try:
        orjson.dumps(safe)
    except TypeError:
        # Integers beyond 64 bits.
        raise Unaskable("input with numbers that cannot be kept") from None
    return safe


def _url(raw: object, secrets: Collection[str]) -> str:
    """Unchanged, as a person will open it."""
    url = raw if isinstance(raw, str) else ""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise Unaskable("a visit to an address that cannot be read") from None
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
        raise Unaskable("a visit to an address that is not a plain http or https one")
    # Browsers drop tabs and line ends and read a backslash as a slash; other alphabets have look-
    # alikes of every host.
    plain = url.isascii() and url.isprintable() and not {" ", "\\", '"', "<", ">"} & set(url)
    if len(url) > MAX_URL or not plain or without(url, secrets) != url:
        raise Unaskable("a visit to an address that cannot be shown")
    return url


def _id(params: JsonObject) -> str | None:
    value = params.get("elicitationId")
    return visible(value, MAX_ID) if isinstance(value, str) else None


def _size(value: object) -> int:
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        # Infinity, as 1e999 is read: no JSON that could be stored.
        raise Unaskable("input with numbers that cannot be kept") from None
    return len(text.encode("utf-8", "replace"))
