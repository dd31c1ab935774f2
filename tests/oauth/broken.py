"""Authorization servers and MCP servers as they are: each page said byte by byte, on loopback."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network

import httpx2
import orjson

from chatd.oauth.attempts import Attempt, Attempted
from chatd.outbound.factory import Outbound
from tests.outbound.raw_server import Exchange, RawServer, serving

LOOPBACK = ip_network("127.0.0.1/32")
PRM = "/.well-known/oauth-protected-resource"
OAUTH = "/.well-known/oauth-authorization-server"
OIDC = "/.well-known/openid-configuration"
SERVER = "{mcp}/mcp"


@dataclass(frozen=True)
class Page:
    """An answer; in `json` and `headers`, `{mcp}`, `{as}` and `{other}` become those origins."""

    json: object = None
    status: int = 200
    headers: str = ""
    body: bytes = b""
    hangs: bool = False
    """Before the headers; with a body, after that body."""


Pages = Mapping[str, Page]
"""By `host METHOD path`, as in `mcp POST /mcp`; everything else is 404. A registration may have one
for each method of authentication, as in `as POST /register none`."""

HOSTS = ("mcp", "as", "other")


@dataclass
class World:
    """Three hosts on loopback, and a client that may dial them."""

    http: httpx2.AsyncClient
    pages: Pages
    origins: dict[str, str] = field(default_factory=dict[str, str])
    heard: list[str] = field(default_factory=list[str])
    bodies: list[bytes] = field(default_factory=list[bytes])
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    """Set as soon as somebody waits for a page that hangs."""

    def fill(self, text: str) -> str:
        for name, place in self.origins.items():
            text = text.replace("{" + name + "}", place)
        return text

    def short(self, text: str) -> str:
        """The other way round: as the table of a test says it."""
        for name, place in self.origins.items():
            text = text.replace(place, "{" + name + "}")
        return text

    def told(self, failure: Attempted) -> list[str]:
        return [self.short(line(attempt)) for attempt in failure.attempts]

    async def answer(self, host: str, exchange: Exchange) -> None:
        key = f"{host} {exchange.method} {exchange.path}"
        self.heard.append(key)
        self.bodies.append(exchange.body)
        if key.endswith(" POST /register") and f"{key} none" in self.pages:
            key += f" {orjson.loads(exchange.body)['token_endpoint_auth_method']}"
        page = self.pages.get(key, Page(status=404))
        if page.hangs:
            self.hanging.set()
            if page.body:
                await exchange.begin(page.headers or "content-type: application/json\r\n")
                await exchange.chunk(page.body)
            await exchange.until_closed()
            return
        body, headers = page.body, self.fill(page.headers)
        if page.json is not None:
            body = self.fill(orjson.dumps(page.json).decode()).encode()
            headers += "content-type: application/json\r\n"
        await exchange.answer(body, status=page.status, headers=headers)


def line(attempt: Attempt) -> str:
    return f"{attempt.url} {attempt.found}"


@asynccontextmanager
async def world(pages: Pages) -> AsyncGenerator[World]:
    outbound = Outbound(mcp_allowed=[LOOPBACK])
    async with AsyncExitStack() as stack:
        stack.push_async_callback(outbound.aclose)
        made = World(await outbound.discovery_client("http://127.0.0.1:1/mcp"), pages)
        for host in HOSTS:
            raw = await stack.enter_async_context(_host(made, host))
            made.origins[host] = f"http://127.0.0.1:{raw.port}"
        yield made


@asynccontextmanager
async def _host(made: World, name: str) -> AsyncGenerator[RawServer]:
    async def answer(exchange: Exchange) -> None:
        await made.answer(name, exchange)

    async with serving(answer) as raw:
        yield raw


def unauthorized(www_authenticate: str = "") -> Page:
    header = f"www-authenticate: {www_authenticate}\r\n" if www_authenticate else ""
    return Page(status=401, headers=header)


def challenged(place: str) -> Page:
    return unauthorized(f'Bearer resource_metadata="{place}"')


def resource(*servers: str, of: str = SERVER, **more: object) -> Page:
    return Page({"resource": of, "authorization_servers": servers or ("{as}",), **more})


def issuer(name: str = "{as}", *, at: str = "", **changes: object) -> Page:
    """With everything we need; a value None leaves the member out."""
    place = at or name.rstrip("/")
    metadata: dict[str, object] = {
        "issuer": name,
        "authorization_endpoint": f"{place}/authorize",
        "token_endpoint": f"{place}/token",
        "registration_endpoint": f"{place}/register",
        "code_challenge_methods_supported": ["S256"],
        **changes,
    }
    return Page({key: value for key, value in metadata.items() if value is not None})


def redirect(location: str) -> Page:
    return Page(status=302, headers=f"location: {location}\r\n")
