"""From a server's URL to the authorization server that guards it (MCP; RFC 9728, then RFC 8414)."""

import asyncio
from contextlib import suppress
from typing import NamedTuple

import httpx2

from chatd.core.errors import NotDialled
from chatd.core.oauth import Discovered, Issuer
from chatd.core.release import VERSION
from chatd.oauth.attempts import Attempt, DiscoveryFailed, Fault, Problem
from chatd.oauth.challenge import Challenge, parse_challenge
from chatd.oauth.documents import LIMITS, MAX_HOPS, Limits, Reader, fault_of, redirects_to
from chatd.oauth.metadata import (
    conventional,
    exactly,
    metadata_urls,
    only_its_own,
    parse_issuer,
    same_issuer,
)
from chatd.oauth.next_steps import failed
from chatd.oauth.resource import Resource, metadata_urls as resource_urls, parse_resource
from chatd.oauth.urls import canonical, origin, origin_text, parsed

__all__ = ["Attempt", "DiscoveryFailed", "Limits", "discover", "read_issuer"]

_NOTHING: frozenset[Problem] = frozenset({"", "open", "missing", "invalid", "redirect"})
"""Findings that say: this server does not publish that. An outage or a refusal says no such thing,
and must not send us to the rules of 2025-03-26."""
_UNPUBLISHED: frozenset[Problem] = frozenset({"missing", "invalid", "redirect", "blocked"})
"""At an issuer's own place. `blocked`: its name is one of a network that we cannot be in."""

_PROBE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "server/discover",
    "params": {
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "chatd", "version": VERSION},
        }
    },
}
"""Opens no session at a server that asks for no login, unlike `initialize`."""
_PROBE_HEADERS = {
    "accept": "application/json, text/event-stream",
    "mcp-protocol-version": "2026-07-28",
    "mcp-method": "server/discover",
}
_CHECK_SECONDS = 3.0


class _Answer(NamedTuple):
    challenge: Challenge
    asks_for_login: bool


async def discover(
    http: httpx2.AsyncClient,
    server_url: str,
    *,
    challenge: Challenge | None = None,
    expected: str = "",
    limits: Limits = LIMITS,
) -> Discovered:
    """`challenge`: of a 401 that was just met; without it the server is asked for one. `expected`:
    the only issuer that counts, exactly as its metadata names it, wherever that lies.

    Raises DiscoveryFailed with everything that was tried. A server without resource metadata is
    read by the rules of 2025-03-26: its own origin is the authorization server, or says which is.
    """
    reader = Reader(http, limits)
    url = parsed(server_url)
    if url is None:
        reader.note(server_url, Fault("not an http or https URL without credentials", "invalid"))
        raise failed(reader.attempts)
    answer = _Answer(challenge or Challenge(), challenge is not None)
    found: Discovered | None = None
    legacy = False
    try:
        async with asyncio.timeout(limits.total_s):
            if challenge is None:
                answer = await _probe(reader, url)
            resource = await _resource(reader, url, answer.challenge)
            if resource is not None:
                found = await _guarded_by(reader, resource, expected)
            elif reader.problems() <= _NOTHING:
                legacy = True
                found = await _at_origin(reader, url, expected)
    except TimeoutError:
        reader.ran_out()
    if found is None:
        unnamed = conventional(url) if legacy and answer.asks_for_login else None
        nothing = reader.problems() <= _NOTHING and unnamed and expected in ("", unnamed.issuer)
        raise failed(reader.attempts, unnamed if nothing else None)
    scopes = tuple(answer.challenge.scope.split())
    return Discovered(found.resource, scopes or found.scopes, found.issuer)


async def read_issuer(
    http: httpx2.AsyncClient,
    issuer_url: str,
    *,
    requires_pkce: bool = True,
    limits: Limits = LIMITS,
) -> Issuer:
    """The authorization server of that name. Raises DiscoveryFailed.

    `requires_pkce` False is for OpenID Connect logins alone, where the nonce binds the code too:
    some providers take S256 without announcing it.
    """
    reader = Reader(http, limits)
    try:
        async with asyncio.timeout(limits.total_s):
            issuer = await _issuer(reader, issuer_url, requires_pkce=requires_pkce)
    except TimeoutError:
        reader.ran_out()
        issuer = None
    if issuer is None:
        raise failed(reader.attempts)
    return issuer


async def _probe(reader: Reader, url: httpx2.URL) -> _Answer:
    """POST, as the streamable transport does, then GET for the one before it."""
    answer = _Answer(Challenge(), asks_for_login=False)
    reader.asking = str(url)
    for method in ("POST", "GET"):
        try:
            async with asyncio.timeout(reader.limits.request_s):
                status, said = await _asked(reader, method, url)
        except (httpx2.HTTPError, httpx2.InvalidURL, NotDialled, TimeoutError) as error:
            reader.note(url, fault_of(error))
            return answer
        if status in (401, 403):
            answer = _Answer(said, answer.asks_for_login or status == 401)
        if status == 401 or 200 <= status < 300:
            return answer
    return answer


async def _asked(reader: Reader, method: str, url: httpx2.URL) -> tuple[int, Challenge]:
    """Status and challenge; a redirect that only moves within the origin (to add a slash, say) is
    followed, as it will be when the server is used."""
    body = _PROBE if method == "POST" else None
    for left in range(MAX_HOPS - 1, -1, -1):
        async with reader.http.stream(
            method, url, json=body, headers=_PROBE_HEADERS, follow_redirects=False
        ) as response:
            target = _moved(response)
            if target is None or not left:
                said = parse_challenge(response.headers.get_list("www-authenticate"))
                reader.note(url, _probed(method, response, said))
                return response.status_code, said
        url = target
    return 0, Challenge()


def _moved(response: httpx2.Response) -> httpx2.URL | None:
    """Where to within the origin, with the same method."""
    if response.status_code not in (307, 308) or not response.has_redirect_location:
        return None
    target = response.url.join(response.headers["location"])
    same = parsed(str(target)) is not None and origin(target) == origin(response.url)
    return target if same else None


def _probed(method: str, response: httpx2.Response, said: Challenge) -> Fault:
    if response.has_redirect_location:
        return redirects_to(response.url.join(response.headers["location"]))
    place = ", names its metadata" if said.resource_metadata else ""
    problem: Problem = "open" if response.is_success else ""
    return Fault(f"{method}: HTTP {response.status_code}{place}", problem)


async def _resource(reader: Reader, url: httpx2.URL, challenge: Challenge) -> Resource | None:
    for place in resource_urls(url, challenge.resource_metadata):
        document = await reader.read(place)
        if document is None:
            continue
        resource = parse_resource(document.value, url)
        if isinstance(resource, Resource):
            return resource
        reader.note(place, resource)
    return None


async def _guarded_by(reader: Reader, resource: Resource, expected: str) -> Discovered | None:
    """By the first of its authorization servers that is of use (RFC 9728, section 7.6)."""
    for name in resource.servers:
        issuer = await _issuer(reader, name, expected=expected)
        if issuer is not None:
            return Discovered(resource.resource, resource.scopes, issuer)
    return None


async def _at_origin(reader: Reader, url: httpx2.URL, expected: str) -> Discovered | None:
    """2025-03-26: metadata at the server's origin, whatever its path.

    There the issuer may be anything on that origin. One elsewhere is only a name, as it would be in
    resource metadata: what counts is what it says at its own place, or that it is expected.
    """
    root = httpx2.URL(origin_text(url))
    for place in metadata_urls(root):
        document = await reader.read(place)
        if document is None:
            continue
        issuer = parse_issuer(document.value, document.url, asked=None, expected=expected)
        if isinstance(issuer, Fault):
            reader.note(place, issuer)
            continue
        if origin(httpx2.URL(issuer.issuer)) == origin(url):
            found = await _dialable(reader, place, issuer)
        elif expected:
            found = await _elsewhere(reader, place, issuer)
        else:
            fault = Fault("names another host as issuer", "", exactly(issuer.issuer))
            reader.note(place, fault)
            found = await _issuer(reader, issuer.issuer)
        if found is not None:
            return Discovered(canonical(url), (), found)
    return None


async def _issuer(
    reader: Reader, name: str, *, expected: str = "", requires_pkce: bool = True
) -> Issuer | None:
    url = parsed(name)
    if url is None or url.query or url.fragment:
        reader.note(name, Fault("not the name of an issuer", "issuer"))
        return None
    for place in metadata_urls(url):
        document = await reader.read(place)
        if document is None:
            continue
        issuer = parse_issuer(
            document.value,
            document.url,
            asked=name,
            expected=expected,
            requires_pkce=requires_pkce,
        )
        if isinstance(issuer, Fault):
            reader.note(place, issuer)
            continue
        away = expected and not same_issuer(expected, name)
        found = await (_elsewhere if away else _dialable)(reader, place, issuer)
        if found is not None:
            return found
    return None


async def _elsewhere(reader: Reader, place: str, said: Issuer) -> Issuer | None:
    """Of an expected issuer, metadata that is not where its name leads. Anybody can claim to be it
    and have codes and tokens sent to themselves: such a document counts only where it lies at the
    issuer's host, or in what it sends there, or if the issuer publishes nothing."""
    here = origin(httpx2.URL(said.issuer)) == origin(httpx2.URL(place))
    trusted = said if here else only_its_own(said)
    if trusted is not None:
        return await _dialable(reader, place, trusted)
    before = len(reader.attempts)
    own = await _issuer(reader, said.issuer, expected=said.issuer)
    if own is not None:
        return own
    problems = {attempt.problem for attempt in reader.attempts[before:]}
    return await _dialable(reader, place, said) if problems <= _UNPUBLISHED else None


async def _dialable(reader: Reader, place: str, issuer: Issuer) -> Issuer | None:
    """The issuer, unless the guard refuses one of its endpoints: better told now than at the first
    login. Hosts other than the document's get one HEAD; what they say to it does not matter."""
    endpoints = (issuer.registration_endpoint, issuer.token_endpoint, issuer.authorization_endpoint)
    hosts = {origin(url): url for text in endpoints if (url := parsed(text)) is not None}
    hosts.pop(origin(httpx2.URL(place)), None)
    for url in hosts.values():
        with suppress(httpx2.HTTPError, TimeoutError):
            try:
                async with asyncio.timeout(min(_CHECK_SECONDS, reader.limits.request_s)):
                    await reader.http.head(url, follow_redirects=False)
            except NotDialled as error:
                reader.note(url, fault_of(error))
                return None
    return issuer
