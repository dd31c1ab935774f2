"""Reads the JSON documents of servers nobody vouches for, and notes what was at each URL."""

import asyncio
import socket
import ssl
from dataclasses import dataclass

import httpx2
import orjson

from chatd.core.errors import NotDialled
from chatd.core.tools import JsonObject
from chatd.oauth.attempts import Attempt, Fault, Problem, shown
from chatd.oauth.bodies import capped_body
from chatd.oauth.urls import origin, origin_text, parsed

HEADERS = {"accept": "application/json", "mcp-protocol-version": "2026-07-28"}
MAX_HOPS = 3
_AWAY = (408, 425, 429)


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds. A server that sends a byte now and then is bounded too."""

    request_s: float = 8.0
    total_s: float = 20.0


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON object, and where it was: after redirects within its origin."""

    url: httpx2.URL
    value: JsonObject


class Reader:
    """One search: its client, its limits, and what it found where."""

    def __init__(self, http: httpx2.AsyncClient, limits: Limits = LIMITS) -> None:
        self.http = http
        self.limits = limits
        self.attempts: list[Attempt] = []
        self.asking = ""
        """Where the search is, for when it runs out of time."""
        self._silent: dict[tuple[str, str, int], Problem] = {}

    def note(self, url: str | httpx2.URL, fault: Fault) -> None:
        self.attempts.append(Attempt(shown(url), *fault))

    def ran_out(self) -> None:
        """The whole search took too long: says where it was."""
        self.note(self.asking, Fault("no answer before the time for all was over", "unreachable"))

    def problems(self) -> set[Problem]:
        return {attempt.problem for attempt in self.attempts}

    async def read(self, text: str) -> Document | None:
        """None: noted. A host that did not answer once is not asked again."""
        url = parsed(text)
        if url is None:
            self.note(text, Fault("not an http or https URL without credentials", "invalid"))
            return None
        silent = self._silent.get(origin(url))
        if silent is not None:
            self.note(url, Fault("not asked: its host could not be reached before", silent))
            return None
        self.asking = text
        found: Document | Fault
        try:
            async with asyncio.timeout(self.limits.request_s):
                found = await self._follow(url)
        except (httpx2.HTTPError, httpx2.InvalidURL, NotDialled, TimeoutError) as error:
            found = fault_of(error)
            if isinstance(error, TimeoutError | httpx2.TimeoutException | httpx2.ConnectError):
                self._silent[origin(url)] = found.problem
        if isinstance(found, Fault):
            self.note(url, found)
            return None
        return found

    async def _follow(self, url: httpx2.URL) -> Document | Fault:
        """Redirects only within the origin (fetching stays guarded, but a redirect elsewhere would
        let any open redirect of a host speak for it)."""
        for _ in range(MAX_HOPS):
            async with self.http.stream(
                "GET", url, headers=HEADERS, follow_redirects=False
            ) as response:
                if not response.has_redirect_location:
                    return await _object(url, response)
                target = url.join(response.headers["location"])
            if parsed(str(target)) is None or origin(target) != origin(url):
                return redirects_to(target)
            url = target
        return Fault(f"redirects more than {MAX_HOPS - 1} times", "redirect")


async def _object(url: httpx2.URL, response: httpx2.Response) -> Document | Fault:
    status = response.status_code
    if status >= 500 or status in _AWAY:
        return Fault(f"HTTP {status}", "unreachable")
    if status != 200:
        return Fault(f"HTTP {status}", "missing")
    if _kind(response) in ("text/html", "application/xhtml+xml"):
        return Fault("HTTP 200 with a web page, not JSON", "invalid")
    value = await json_object(response)
    return (
        Fault("HTTP 200 but no JSON object", "invalid") if value is None else Document(url, value)
    )


async def json_object(response: httpx2.Response) -> JsonObject | None:
    """Whatever the content type says, unless it is an event stream: one may never end.

    Raises RemoteProtocolError when it is too large.
    """
    if _kind(response) == "text/event-stream":
        return None
    body = await capped_body(response)
    if body is None:
        raise httpx2.RemoteProtocolError("the answer is too large")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _kind(response: httpx2.Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


def fault_of(error: Exception) -> Fault:
    """A transport's failure in our words: its own may quote what the server sent."""
    if isinstance(error, NotDialled):
        return Fault(f"refused: {error}", "blocked")
    if isinstance(error, TimeoutError | httpx2.TimeoutException):
        return Fault("no answer in time", "unreachable")
    if isinstance(error, httpx2.RemoteProtocolError):
        return Fault("an answer that is broken or too large", "unreachable")
    causes = _causes(error)
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return Fault("its host name cannot be resolved", "unreachable")
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return Fault("its TLS certificate is not accepted", "unreachable")
    return Fault("cannot be reached", "unreachable")


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found


def redirects_to(target: httpx2.URL) -> Fault:
    """Names only the origin: what follows it may be somebody's state."""
    place = shown(origin_text(target)) if parsed(str(target)) else "no web address"
    return Fault(f"redirects to {place}: not followed", "redirect")
