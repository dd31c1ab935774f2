"""From a server's URL to the authorization server that guards it (MCP; RFC 9728, then RFC 8414)."""

import asyncio
from contextlib import suppress
from typing import NamedTuple

import httpx2

from chatd.core.errors import NotDialled
from chatd.core.oauth import Discovered, Issuer
from chatd.core.release import VERSION
from chatd.oauth.attempts import MANUAL, Attempt, DiscoveryFailed, Fault, Problem
from chatd.oauth.challenge import Challenge, parse_challenge
from chatd.oauth.documents import LIMITS, MAX_HOPS, Limits, Reader, fault_of, redirects_to
from chatd.oauth.metadata import conventional, metadata_urls, parse_issuer
from chatd.oauth.resource import Resource, metadata_urls as resource_urls, parse_resource
from chatd.oauth.urls import canonical, origin, origin_text, parsed

__all__ = ["Attempt", "DiscoveryFailed", "Limits", "discover", "read_issuer"]

_NOTHING: frozenset[Problem] = frozenset({"", "open", "missing", "invalid", "redirect"})
"""Findings that say: this server does not publish that. An outage or a refusal says no such thing,
and must not send us to the rules of 2025-03-26."""

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
    limits: Limits = LIMITS,
) -> Discovered:
    """`challenge`: of a 401 that was just met; without it the server is asked for one.

    Raises DiscoveryFailed with everything that was tried. A server without resource metadata is
    read by the rules of 2025-03-26: its own origin is the authorization server, or says which is.
    """
    reader = Reader(http, limits)
    url = parsed(server_url)
    if url is None:
        reader.note(server_url, Fault("not an http or https URL without credentials", "invalid"))
        raise _failed(reader)
    answer = _Answer(challenge or Challenge(), challenge is not None)
    found: Discovered | None = None
    legacy = False
    try:
        async with asyncio.timeout(limits.total_s):
            if challenge is None:
                answer = await _probe(reader, url)
            resource = await _resource(reader, url, answer.challenge)
            if resource is not None:
                found = await _guarded_by(reader, resource)
            elif reader.problems() <= _NOTHING:
                legacy = True
                found = await _at_origin(reader, url)
    except TimeoutError:
        reader.ran_out()
    if found is None:
        last_resort = legacy and answer.asks_for_login and reader.problems() <= _NOTHING
        raise _failed(reader, conventional(url) if last_resort else None)
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
        raise _failed(reader)
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


async def _guarded_by(reader: Reader, resource: Resource) -> Discovered | None:
    """By the first of its authorization servers that is of use (RFC 9728, section 7.6)."""
    for name in resource.servers:
        issuer = await _issuer(reader, name)
        if issuer is not None:
            return Discovered(resource.resource, resource.scopes, issuer)
    return None


async def _at_origin(reader: Reader, url: httpx2.URL) -> Discovered | None:
    """2025-03-26: metadata at the server's origin, whatever its path.

    There the issuer may be anything on that origin. One elsewhere is only a name, as it would be in
    resource metadata: what counts is what it says at its own place.
    """
    root = httpx2.URL(origin_text(url))
    for place in metadata_urls(root):
        document = await reader.read(place)
        if document is None:
            continue
        issuer = parse_issuer(document.value, document.url, asked=None)
        if isinstance(issuer, Fault):
            reader.note(place, issuer)
            continue
        if origin(httpx2.URL(issuer.issuer)) != origin(url):
            reader.note(place, Fault("names another host as issuer", ""))
            found = await _issuer(reader, issuer.issuer)
        else:
            found = await _dialable(reader, place, issuer)
        if found is not None:
            return Discovered(canonical(url), (), found)
    return None


async def _issuer(reader: Reader, name: str, *, requires_pkce: bool = True) -> Issuer | None:
    url = parsed(name)
    if url is None or url.query or url.fragment:
        reader.note(name, Fault("not the name of an issuer", "issuer"))
        return None
    for place in metadata_urls(url):
        document = await reader.read(place)
        if document is None:
            continue
        issuer = parse_issuer(document.value, document.url, asked=name, requires_pkce=requires_pkce)
        if isinstance(issuer, Fault):
            reader.note(place, issuer)
        elif (dialable := await _dialable(reader, place, issuer)) is not None:
            return dialable
    return None


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


_GIVE = f"give {MANUAL}"
_NEXT_STEPS: dict[Problem, str] = {
    "blocked": "It leads to an address this deployment may not call. If that network is yours, its "
    "operator can open it (CHATD_MCP_ALLOWED_CIDRS).",
    "resource": f"Use the URL that the metadata names as the server's URL, or {_GIVE}.",
    "pkce": "The authorization server does not announce PKCE with S256, without which no login is "
    f"safe. Ask its operator to announce it, or if it is known to work {_GIVE}.",
    "issuer": "The authorization server's metadata is of another issuer. Ask the server's operator "
    f"to correct it, or {_GIVE}.",
    "endpoint": f"Ask the authorization server's operator to correct its endpoints, or {_GIVE}.",
    "unreachable": f"Check the URL and whether the server is up, then try again, or {_GIVE}.",
    "redirect": "It redirects to another host, which is not followed. If that is the right one, "
    f"use it in the server's URL, or {_GIVE}.",
    "open": "The server answered without asking for a login: auth_type none may do. If it does "
    f"need one, {_GIVE}.",
}
"""The most telling problem first."""


def _failed(reader: Reader, issuer: Issuer | None = None) -> DiscoveryFailed:
    problems = reader.problems()
    step = next(
        (text for problem, text in _NEXT_STEPS.items() if problem in problems),
        "The server publishes no metadata of an authorization server. Register an application with "
        f"its operator and {_GIVE}.",
    )
    return DiscoveryFailed(reader.attempts, step, conventional=issuer)
