"""Everywhere that a secret could be found: logs apart, which the fleet has."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

from redis import asyncio as redis

from chatd.store.db import Database
from tests.outbound.raw_server import Exchange, RawServer
from tests.waiting import soon

TABLES = """
SELECT table_name FROM information_schema.tables
WHERE table_schema = 'public' AND table_type = 'BASE TABLE'
"""


async def collect(exchange: Exchange) -> None:
    await exchange.answer(headers="content-type: application/x-protobuf\r\n")


async def traces(collector: RawServer, *spans: str) -> bytes:
    """All that was exported, once these names are among it."""

    def exported() -> bytes:
        return b"".join(exchange.body for exchange in collector.exchanges)

    def complete() -> bool:
        text = exported()
        return all(name.encode() in text for name in spans)

    await soon(complete)
    return exported()


def holds(text: bytes, secret: str) -> bool:
    """As it is, or in the hex of a dump."""
    plain = secret.encode()
    return plain in text or plain.hex().encode() in text


async def rows(db: Database) -> dict[str, bytes]:
    """Every table as text."""
    dumped: dict[str, bytes] = {}
    for name in [row["table_name"] for row in await db.fetch(TABLES)]:
        lines = await db.fetch(f'SELECT row_to_json(t)::text AS line FROM "{name}" t')
        dumped[f"table {name}"] = "\n".join(row["line"] for row in lines).encode()
    return dumped


async def redis_values(url: str) -> dict[str, bytes]:
    """Every key with what it holds."""
    async with redis.Redis.from_url(url) as client:
        typed = cast(Any, client)
        readers: dict[bytes, Callable[[bytes], Awaitable[object]]] = {
            b"string": typed.get,
            b"list": lambda key: typed.lrange(key, 0, -1),
            b"set": typed.smembers,
            b"zset": lambda key: typed.zrange(key, 0, -1),
            b"hash": typed.hgetall,
            b"stream": typed.xrange,
        }
        found: dict[str, bytes] = {}
        async for key in typed.scan_iter():
            kind = await typed.type(key)
            if kind != b"none":  # it has run out since
                found[f"redis {key.decode()}"] = repr(await readers[kind](key)).encode()
        return found
