"""An authorization server on loopback: it answers as a test says, and tells what it heard."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any
from urllib.parse import parse_qs

import httpx2
import orjson

from chatd.core.oauth import Client, Issuer
from chatd.outbound import Outbound
from tests.outbound.raw_server import Exchange, serving

LOOPBACK = (ip_network("127.0.0.0/8"),)
TOKEN = "granted-access-token"
GRANTED: Mapping[str, Any] = {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600}

PUBLIC = Client(client_id="chatd")

Say = Callable[[Exchange], Awaitable[None]]


@dataclass(frozen=True)
class Heard:
    """One request, its form with each field once."""

    method: str
    path: str
    headers: Mapping[str, str]
    form: Mapping[str, str]


def json(value: object, *, status: int = 200, headers: str = "") -> Say:
    return text(orjson.dumps(value), status=status, kind="application/json", headers=headers)


def text(body: bytes, *, status: int = 200, kind: str = "text/html", headers: str = "") -> Say:
    async def say(exchange: Exchange) -> None:
        await exchange.answer(body, status=status, headers=f"content-type: {kind}\r\n{headers}")

    return say


def raw(data: bytes) -> Say:
    """These bytes, then the end of the connection."""

    async def say(exchange: Exchange) -> None:
        await exchange.send(data)
        exchange.writer.close()

    return say


async def silence(exchange: Exchange) -> None:
    """Says nothing until the client has had enough."""
    await exchange.until_closed()


class Issuing:
    """Says each of `script` once, the last one from then on."""

    def __init__(self) -> None:
        self.script: list[Say] = [json(GRANTED)]
        self.heard: list[Heard] = []
        self.url = ""
        self.http: httpx2.AsyncClient

    @property
    def token_url(self) -> str:
        return f"{self.url}/token"

    @property
    def issuer(self) -> Issuer:
        return Issuer(
            issuer=self.url,
            authorization_endpoint=f"{self.url}/authorize",
            token_endpoint=self.token_url,
            jwks_uri=f"{self.url}/jwks",
        )

    @property
    def form(self) -> Mapping[str, str]:
        """Of the only request so far."""
        assert len(self.heard) == 1
        return self.heard[0].form

    def says(self, *script: Say) -> None:
        self.script = list(script)

    async def answer(self, exchange: Exchange) -> None:
        fields = parse_qs(exchange.body.decode(), keep_blank_values=True, strict_parsing=False)
        assert all(len(values) == 1 for values in fields.values()), fields.keys()
        form = {name: values[0] for name, values in fields.items()}
        self.heard.append(Heard(exchange.method, exchange.path, exchange.headers, form))
        say = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        await say(exchange)


@asynccontextmanager
async def issuing() -> AsyncGenerator[Issuing]:
    """Its `http` is what production gets: guarded, and allowed to dial loopback alone."""
    peer = Issuing()
    async with serving(peer.answer) as server:
        peer.url = f"http://127.0.0.1:{server.port}"
        outbound = Outbound(mcp_allowed=LOOPBACK)
        peer.http = await outbound.discovery_client(peer.url)
        try:
            yield peer
        finally:
            await outbound.aclose()


def everything_told(error: BaseException) -> str:
    """All that any logger could print of an error: its chain, arguments and attributes."""
    return "\n".join(
        f"{each!s} {each!r} {each.args!r} {vars(each)!r}" for each in _chain(error, set())
    )


def _chain(error: BaseException | None, seen: set[int]) -> Iterator[BaseException]:
    if error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        yield from _chain(error.__cause__, seen)
        yield from _chain(error.__context__, seen)
