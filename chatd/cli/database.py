"""The database for a command that works in it itself, mostly in one transaction."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from redis.asyncio import Redis
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd import logs
from chatd.queue import SEND_TIMEOUT_S, PolicyMoves
from chatd.settings import DatabaseSettings, PushSettings, SettingsError, load
from chatd.store.db import Database

T = TypeVar("T")


def in_transaction(settings: DatabaseSettings, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """What `work` answers, committed."""

    async def within(db: Database) -> T:
        async with db.transaction() as session:
            return await work(session)

    return in_database(settings, within)


def in_database(settings: DatabaseSettings, work: Callable[[Database], Awaitable[T]]) -> T:
    """The same for work of several transactions."""
    logs.configure("console", "warning")

    async def run() -> T:
        url = settings.database_url.get_secret_value()
        db = Database(url, pool_size=1, application="chatd cli")
        moved = asyncio.Event()
        db.on_policy = moved.set
        try:
            answer = await work(db)
        finally:
            await db.close()
        if moved.is_set():
            await _push_policy()
        return answer

    return asyncio.run(run())


async def _push_policy() -> None:
    """So that it takes effect at once; without Redis every process finds out within seconds."""
    try:
        url = load(PushSettings).redis_url
    except SettingsError:
        return
    if url is None:
        return
    redis = Redis.from_url(url.get_secret_value(), socket_connect_timeout=SEND_TIMEOUT_S)
    moves = PolicyMoves(redis)
    moves.start()
    moves.push()
    await moves.close()
    await cast(Any, redis).aclose()
