"""How an MCP server fails, in words that hold no secret."""

import re
from collections.abc import Collection, Iterable
from typing import Any, Literal, cast

from chatd.core.text import clean, clean_json
from chatd.core.tools import JsonObject

FailureReason = Literal[
    "timeout",
    "refused",
    "blocked",
    "closed",
    "late",
    "auth_required",
    "forbidden",
    "not_found",
    "session_unknown",
    "unavailable",
    "too_large",
    "protocol",
    "rpc",
]
"""`blocked`: by our address rules; `closed`: the connection broke; `late`: it could not leave in
time; `rpc`: the server's own error."""

MAX_MESSAGE = 500

_REDACTED = "[REDACTED]"

_URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?:[^\s/?#@\"'<>]*@)?(?P<rest>[^\s?#\"'<>]*)[^\s\"'<>]*",
    re.IGNORECASE,
)


class ServerFailed(Exception):
    """A server did not give a usable answer; `message` is for users and models.

    `unknown` is true when the request had left: what it asked for may have happened. `code` is the
    JSON-RPC error's, 0 without one; `data` is that error's, raw. `in_session`: what was refused
    named a session, which may be why.
    """

    def __init__(
        self,
        reason: FailureReason,
        message: str,
        *,
        unknown: bool = False,
        code: int = 0,
        data: object = None,
        in_session: bool = False,
    ) -> None:
        super().__init__(message)
        self.reason: FailureReason = reason
        self.message = message
        self.unknown = unknown
        self.code = code
        self.data = data
        self.in_session = in_session

    def before_sending(self) -> "ServerFailed":
        """The same for a request that waited for a connection and never left."""
        return ServerFailed(self.reason, self.message, code=self.code)


def redacted(text: str, *, limit: int = MAX_MESSAGE) -> str:
    """A server's words on one line, at most `limit` characters, URLs without their secret parts.

    Userinfo, query and fragment of a URL can carry credentials.
    """
    text = _URL.sub(
        lambda url: url["scheme"] + url["rest"], " ".join(clean(text[: limit * 4]).split())
    )
    return text if len(text) <= limit else text[: limit - 1] + "…"


def without(text: str, secrets: Iterable[str]) -> str:
    """Servers echo what they were sent; longer secrets first, as one may hold another."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, _REDACTED)
    return text


def json_without(value: Any, secrets: Collection[str]) -> object:
    """The JSON value with every text in it, keys too, cleaned and without the secrets."""
    if not secrets:
        return clean_json(value)
    if isinstance(value, str):
        return without(cast(str, clean_json(value)), secrets)
    if isinstance(value, dict):
        items = cast(JsonObject, value).items()
        return {str(json_without(key, secrets)): json_without(item, secrets) for key, item in items}
    if isinstance(value, list):
        return [json_without(item, secrets) for item in cast(list[Any], value)]
    return value
