"""The cookie of a browser that is signed in, and what keeps other sites from using it.

It holds the session's token, and the proof that a request comes from one of our pages, which those
read from `GET /users/me`: the cookie itself no script can read.
"""

import re
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatd.store.sessions import GRACE_S, NewSession

HOST_PREFIX = "__Host-"
NAME = "chatd_session"
CSRF_HEADER = "x-csrf-token"
SLOT = "chatd.session"
"""Where what a request's cookie came to is in the ASGI scope."""

HAND_OUT_S = GRACE_S - 10
"""A cookie older than that stays here: once the one before has had its minute, another request may
have got a newer one, which this would overwrite. The rest is for its way to the browser."""

_VALUE = re.compile(r"(chatds_[\w-]{16,128})\.([\w-]{16,128})", re.ASCII)
_SAFE = ("GET", "HEAD", "OPTIONS")


@dataclass(slots=True)
class Slot:
    """What the answer to a signed-in browser still needs."""

    used: bool = False
    csrf: str = field(default="", repr=False)
    set_cookie: str = field(default="", repr=False)
    until: float = inf

    def hand_out(self, set_cookie: str, until: float = inf) -> None:
        """With the answer, if that begins before `until`, by the monotonic clock."""
        self.set_cookie, self.until = set_cookie, until

    def in_time(self) -> str:
        return self.set_cookie if monotonic() < self.until else ""


@dataclass(frozen=True, slots=True)
class Cookie:
    token: str = field(repr=False)
    csrf: str = field(repr=False)

    def header(self, access_url: str, seconds: float) -> str:
        value = f"{self.token}.{self.csrf}"
        return cookie_header(access_url, NAME, value, seconds)


def cookie_name(access_url: str, name: str = NAME) -> str:
    """Over https no other host can set it, nor read it; over http there is no such thing."""
    return HOST_PREFIX + name if access_url.startswith("https://") else name


def cookie_header(access_url: str, name: str, value: str, seconds: float) -> str:
    """A `Set-Cookie`; one of no time takes the cookie away."""
    secure = "; Secure" if access_url.startswith("https://") else ""
    named = cookie_name(access_url, name)
    return (
        f"{named}={value}; Max-Age={max(0, int(seconds))}; Path=/; HttpOnly; SameSite=Lax{secure}"
    )


def sent(request: HTTPConnection, access_url: str, name: str) -> str:
    """A cookie's value as we have set it, or nothing.

    Read letter by letter. Starlette trims all that Python takes for a blank, and for it
    `\\xa0__Host-…`, which a neighbouring host may set, would be ours. Of two one is not.
    """
    named = cookie_name(access_url, name)
    lines = request.headers.getlist("cookie")
    pairs = [each.partition("=") for line in lines for each in line.split(";")]
    values = [value.strip(" \t") for key, _, value in pairs if key.strip(" \t") == named]
    return values[0] if len(values) == 1 else ""


def cookie_of(request: HTTPConnection, access_url: str) -> Cookie | None:
    found = _VALUE.fullmatch(sent(request, access_url, NAME))
    return Cookie(found[1], found[2]) if found is not None else None


def new_cookie(session: NewSession) -> Cookie:
    return Cookie(session.token, session.csrf)


def may_change(scope: Scope) -> bool:
    """Whether the request is one that another site must not be able to make."""
    return scope["type"] == "websocket" or scope["method"] not in _SAFE


def from_our_page(scope: Scope, origins: frozenset[str]) -> bool:
    """Whether a page of ours or of a listed origin sent it, as far as the browser says.

    Every browser names the origin with what changes something and with a WebSocket; where a proxy
    has lost it, `Sec-Fetch-Site` will do.
    """
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if origin is not None:
        return origin in origins
    return scope["type"] == "http" and headers.get("sec-fetch-site") == "same-origin"


def origin_of(url: str) -> str:
    """As browsers write it."""
    parts = urlsplit(url)
    default = ":443" if parts.scheme == "https" else ":80"
    return f"{parts.scheme}://{parts.netloc.lower().removesuffix(default)}"


class SessionCookies:
    """Hands out the next cookie with whatever answer comes first, and keeps answers to a signed-in
    browser out of shared caches."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        slot = scope[SLOT] = Slot()

        async def sign(message: Message) -> None:
            if message["type"] == "http.response.start" and slot.used:
                headers = MutableHeaders(scope=message)
                headers.setdefault("Cache-Control", "private, no-cache")
                headers.add_vary_header("Cookie")
                if cookie := slot.in_time():
                    headers.append("Set-Cookie", cookie)
            await send(message)

        await self.app(scope, receive, sign)
