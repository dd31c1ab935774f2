"""One transaction for a command that works in the database itself."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlmodel.ext.asyncio.session import AsyncSession

from chatd import logs
from chatd.settings import DatabaseSettings
from chatd.store.db import Database

T = TypeVar("T")


def in_transaction(settings: DatabaseSettings, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """What `work` answers, committed."""
    logs.configure("console", "warning")

    async def run() -> T:
        url = settings.database_url.get_secret_value()
        db = Database(url, pool_size=1, application="chatd cli")
        try:
            async with db.transaction() as session:
                return await work(session)
        finally:
            await db.close()

    return asyncio.run(run())
