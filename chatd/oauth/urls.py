"""URLs as OAuth compares them: origins, well-known places, resources."""

import re

import httpx2

from chatd.core.text import is_line

_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65535
_HOST = re.compile(rb"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
"""A name after IDNA, or an address without its zone: nothing that a browser reads otherwise."""
_AUTHORITY = re.compile(r"[a-z]+://([^/?#]*)", re.IGNORECASE)
_MAX_URL = 2048


def parsed(text: object) -> httpx2.URL | None:
    """An absolute http(s) URL with a host and without credentials, else None."""
    if not isinstance(text, str) or len(text) > _MAX_URL or not is_line(text) or " " in text:
        return None
    try:
        url = httpx2.URL(text)
    except (httpx2.InvalidURL, ValueError):
        return None
    authority = _AUTHORITY.match(text)
    if authority is None or "@" in authority[1] or not _HOST.fullmatch(url.raw_host):
        return None
    if url.scheme not in _PORTS or url.port == 0 or (url.port or 0) > _MAX_PORT:
        return None
    return url


def origin(url: httpx2.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme, 0)


def origin_text(url: httpx2.URL) -> str:
    """As an issuer at the root of the host calls itself: without a slash or a default port."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    port = "" if url.port in (None, _PORTS[url.scheme]) else f":{url.port}"
    return f"{url.scheme}://{host}{port}"


def path_of(url: httpx2.URL) -> str:
    """Still escaped, without query."""
    return url.raw_path.partition(b"?")[0].decode("ascii")


def well_known(url: httpx2.URL, name: str, *, path: str = "") -> str:
    """The place between host and path (RFC 8414, section 3; RFC 9728, section 3)."""
    return f"{origin_text(url)}/.well-known/{name}{path}"


def canonical(server_url: httpx2.URL) -> str:
    """What stands for a server without metadata of its own in RFC 8707's `resource`.

    Without query, as section 2 recommends: an administrator may have put a key into it.
    """
    path = path_of(server_url)
    return origin_text(server_url) + ("" if path == "/" else path)


def covers(resource: object, server_url: httpx2.URL) -> bool:
    """Whether the resource is the server or a parent of it: same origin, whole path segments.

    RFC 9728 (section 3.3) wants them equal; MCP, and the draft that updates it, take a parent too.
    """
    url = parsed(resource)
    if url is None or "#" in str(resource) or origin(url) != origin(server_url):
        return False
    if url.query:
        return url.raw_path == server_url.raw_path
    parent, child = (path_of(each).rstrip("/") + "/" for each in (url, server_url))
    return child.startswith(parent) and not _climbs(parent) and not _climbs(child)


def is_document_url(text: str) -> bool:
    """Whether a client id may be this URL: https, a path, nothing an issuer would have to guess.

    (draft-ietf-oauth-client-id-metadata-document, section 3.) A host without a dot is one that no
    authorization server can reach.
    """
    url = parsed(text)
    if url is None or url.scheme != "https" or url.fragment or "#" in text:
        return False
    return path_of(url) != "/" and not _climbs(text) and "." in url.host.strip(".")


def _climbs(path: str) -> bool:
    return any(part in (".", "..") for part in path.lower().replace("%2e", ".").split("/"))
