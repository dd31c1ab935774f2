"""What a protected resource says of itself: RFC 9728 metadata."""

from dataclasses import dataclass

import httpx2

from chatd.core.tools import JsonObject
from chatd.oauth.attempts import Fault, shown
from chatd.oauth.challenge import scopes_of
from chatd.oauth.urls import canonical, covers, path_of, well_known

MAX_SERVERS = 5
_NAME = "oauth-protected-resource"


@dataclass(frozen=True, slots=True)
class Resource:
    resource: str
    """In its own spelling: it is what its tokens are for."""
    servers: tuple[str, ...]
    """Issuers, in its order; at least one."""
    scopes: tuple[str, ...]


def indicator(server_url: str, named: str, *, sent: bool) -> str:
    """RFC 8707's `resource` for a server: `named`, else its canonical URL; "" where none is sent,
    since some authorization servers refuse it."""
    return (named or canonical(httpx2.URL(server_url))) if sent else ""


def metadata_urls(server_url: httpx2.URL, named: str) -> tuple[str, ...]:
    """Where to look: what the challenge names, the place of the path, the root (MCP 2025-11-25).

    What the challenge names may lie on another host: section 5.1 sets no bound, and a server that
    lies there can lie at its own well-known place just as well. What protects us is the guard and
    that the document's `resource` must cover the server's URL (section 3.3).
    """
    path = path_of(server_url)
    paths = ("" if path == "/" else path, path.rstrip("/"), "")
    places = (well_known(server_url, _NAME, path=each) for each in paths)
    return tuple(dict.fromkeys(place for place in (named, *places) if place))


def parse_resource(value: JsonObject, server_url: httpx2.URL) -> Resource | Fault:
    resource = value.get("resource")
    servers = value.get("authorization_servers")
    names = [each for each in servers if isinstance(each, str)] if isinstance(servers, list) else []
    if not names:
        return Fault("names no authorization server", "invalid")
    if not isinstance(resource, str):
        return Fault("names no resource", "invalid")
    if not covers(resource, server_url):
        return Fault(f"is for another resource, {shown(resource)}", "resource")
    scopes = scopes_of(value.get("scopes_supported"))
    return Resource(resource, tuple(dict.fromkeys(names))[:MAX_SERVERS], scopes)
