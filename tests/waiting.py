"""Waiting for a condition, with a deadline; and making PostgreSQL's sessions wait for us."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import UUID

import asyncpg

from chatd.store.db import Database

T = TypeVar("T")

WITHIN_S = 20.0
_PAUSE_S = 0.002


async def until(check: Callable[[], Awaitable[T]], within_s: float = WITHIN_S) -> T:
    """What `check` answers, as soon as that is true."""
    async with asyncio.timeout(within_s):
        while True:
            if found := await check():
                return found
            await asyncio.sleep(_PAUSE_S)


async def soon(check: Callable[[], T], within_s: float = WITHIN_S) -> T:
    """The same for a check that need not wait."""
    async with asyncio.timeout(within_s):
        while True:
            if found := check():
                return found
            await asyncio.sleep(_PAUSE_S)


class Holder:
    """A session of its own that holds what it has locked until the end of the block."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def execute(self, sql: str, *args: object) -> None:
        await self._connection.execute(sql, *args)

    async def waiting(self, sessions: int = 1) -> list[int]:
        """The process ids of the sessions that wait for a lock, once there are so many."""

        async def found() -> list[int]:
            rows = await self._connection.fetch(
                "SELECT DISTINCT pid FROM pg_locks WHERE NOT granted"
            )
            return [row["pid"] for row in rows] if len(rows) >= sessions else []

        return await until(found)


@asynccontextmanager
async def transaction(url: str) -> AsyncGenerator[Holder]:
    """A transaction beside everybody else's; it commits at the end of the block."""
    connection = await asyncpg.connect(url, ssl=False)
    try:
        async with connection.transaction():
            yield Holder(connection)
    finally:
        await connection.close()


@asynccontextmanager
async def locked(url: str, chat_id: UUID) -> AsyncGenerator[Holder]:
    """Holds the chat's lock, as any command or commit does."""
    async with transaction(url) as holder:
        await holder.execute("SELECT 1 FROM chats WHERE id = $1 FOR NO KEY UPDATE", chat_id)
        yield holder


async def one(db: Database, sql: str, *args: object) -> "asyncpg.Record":
    row = await db.fetch_one(sql, *args)
    assert row is not None
    return row
