"""A pool over the real outbound client, allowed to dial loopback."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ipaddress import ip_network
from typing import Any

import pytest

from chatd.credentials import Credentials
from chatd.mcp.pool import SessionPool
from chatd.outbound.factory import Outbound

MakePool = Callable[..., AbstractAsyncContextManager[SessionPool]]


@pytest.fixture
async def outbound() -> AsyncGenerator[Outbound]:
    made = Outbound(mcp_allowed=[ip_network("127.0.0.0/8")])
    yield made
    await made.aclose()


@pytest.fixture
def make_pool(outbound: Outbound) -> MakePool:
    @asynccontextmanager
    async def make(**options: Any) -> AsyncGenerator[SessionPool]:
        pool = SessionPool(lambda auth: outbound.mcp_client(auth=auth), Credentials(), **options)
        yield pool
        await pool.aclose()

    return make


@pytest.fixture
async def pool(make_pool: MakePool) -> AsyncGenerator[SessionPool]:
    async with make_pool() as made:
        yield made
