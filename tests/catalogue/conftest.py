"""Two processes' catalogues over one Redis, with a clock that the test turns."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from ipaddress import ip_network
from typing import Any

import pytest
from redis.asyncio import Redis

from chatd.catalogue import Catalogue, Pinning, Skipped
from chatd.catalogue.pinning import WITHIN_S
from chatd.core.servers import McpServer, Principal
from chatd.credentials import Credentials
from chatd.dev.valkey import Valkey
from chatd.mcp.pool import SessionPool
from chatd.outbound.factory import Outbound
from chatd.store.db import Database

MakeCatalogue = Callable[..., Catalogue]


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncGenerator[Redis]:
    if not valkey.running:
        await valkey.restart()
    client = Redis.from_url(valkey.url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def make_catalogue(clock: Clock, redis: Redis, db: Database) -> AsyncGenerator[MakeCatalogue]:
    """Each call is a process of its own, as far as a catalogue can tell."""
    async with AsyncExitStack() as stack:
        outbound = Outbound(mcp_allowed=[ip_network("127.0.0.0/8")])
        stack.push_async_callback(outbound.aclose)

        def make(*, pins_within_s: float = WITHIN_S, **options: Any) -> Catalogue:
            pool = SessionPool(lambda auth: outbound.mcp_client(auth=auth), Credentials())
            pinning = Pinning(db, within_s=pins_within_s)
            made = Catalogue(redis, pool, pinning, clock=clock, **options)
            stack.push_async_callback(pool.aclose)
            stack.push_async_callback(made.aclose)
            return made

        yield make


@pytest.fixture
def catalogue(make_catalogue: MakeCatalogue) -> Catalogue:
    return make_catalogue()


async def names(catalogue: Catalogue, server: McpServer, key: str = "shared") -> list[str] | str:
    """The tools' names, or the reason why there are none."""
    (outcome,) = await catalogue.lists([(server, Principal(key))])
    if isinstance(outcome, Skipped):
        return outcome.reason
    return [tool.name for tool in outcome.tools]
