"""Tool servers that a test plays itself, byte by byte, registered with the fleet."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from tests.e2e.client import Client
from tests.e2e.fleet import registered
from tests.mcp.peer import ADD, Peer, Say
from tests.outbound.raw_server import Exchange, RawServer, serving


@dataclass(frozen=True)
class Played:
    """A server as the fleet knows it and as we play it."""

    id: str
    slug: str
    peer: Peer
    raw: RawServer

    @property
    def only(self) -> dict[str, Any]:
        """What makes a message use this server and no other."""
        return {"mcp_server_ids": [self.id]}


@asynccontextmanager
async def played(
    admin: Client, slug: str, *, tools: Sequence[object] = (ADD,), **says: Say
) -> AsyncGenerator[Played]:
    """`says`: what it does instead of answering, by method, `__` for the slash."""
    peer = Peer(tools=tools)
    peer.says = {method.replace("__", "/"): say for method, say in says.items()}
    async with serving(peer.answer) as raw:
        peer.port = raw.port
        async with registered(admin, slug, peer.url) as made:
            yield Played(made["id"], slug, peer, raw)


def body(content: bytes, kind: str = "application/json") -> Say:
    """Answers with these bytes, whatever was asked."""

    async def say(exchange: Exchange, message: dict[str, Any]) -> None:
        await exchange.answer(content, headers=f"content-type: {kind}\r\n")

    return say


def result_bytes(content: bytes) -> Say:
    """Answers with a result written out as bytes: they need not be valid UTF-8."""

    async def say(exchange: Exchange, message: dict[str, Any]) -> None:
        head = b'{"jsonrpc":"2.0","id":%s,"result":' % orjson.dumps(message["id"])
        await exchange.answer(head + content + b"}", headers="content-type: application/json\r\n")

    return say


async def hang(exchange: Exchange, message: dict[str, Any]) -> None:
    await exchange.until_closed()


async def break_off(exchange: Exchange, message: dict[str, Any]) -> None:
    """In the middle of the answer."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n"
    await exchange.send(head, b'{"jsonrpc":')
    exchange.writer.close()
