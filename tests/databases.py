"""Databases that live for one test each, made and dropped at little cost."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg

from chatd.dev.postgres import Postgres


class Databases:
    """What a test leaves is dropped when the next one begins, by the same connection."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._left: list[str] = []

    @asynccontextmanager
    async def copied(self, template: str) -> AsyncGenerator[str]:
        """The URL of a database for the block. Nobody may be connected to the template."""
        name = f"test_{uuid4().hex}"
        admin = await asyncpg.connect(self._postgres.url_of("postgres"), ssl=False)
        try:
            while self._left:
                await admin.execute(f'DROP DATABASE "{self._left[-1]}" WITH (FORCE)')
                self._left.pop()
            # The other strategy writes every block to the log: three times the work.
            await admin.execute(
                f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY'
            )
        finally:
            await admin.close()
        yield self._postgres.url_of(name)
        self._left.append(name)
