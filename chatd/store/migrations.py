"""Bringing a database to this release's schema, and back."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from chatd.core.errors import Unavailable
from chatd.store.db import Database

_PACKAGE = Path(__file__).resolve().parents[1]
LOCK = int.from_bytes(hashlib.sha256(b"chatd migrations").digest()[:8], signed=True)
_ASK_AGAIN_S = 0.1


def _config(connection: Connection | None = None) -> Config:
    """The scripts lie beside the package in a checkout, inside it in a wheel."""
    config = Config()
    installed = _PACKAGE / "_alembic"
    scripts = installed if installed.is_dir() else _PACKAGE.parent / "alembic"
    config.set_main_option("script_location", str(scripts))
    config.attributes["connection"] = connection
    return config


def head() -> str:
    """The newest revision this release knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


async def upgrade(db: Database, revision: str = "head") -> None:
    """Migrate up. Two of these at once are harmless: the second waits, then finds nothing to do."""
    await _run(db, lambda config: command.upgrade(config, revision))


async def downgrade(db: Database, revision: str) -> None:
    await _run(db, lambda config: command.downgrade(config, revision))


async def write_revision(db: Database, message: str) -> None:
    """Compare the tables with the database and write the difference as a new migration."""
    await _run(db, lambda config: command.revision(config, message, autogenerate=True))


async def check(db: Database) -> None:
    """Raises when the tables and the migrated database differ."""
    await _run(db, command.check)


async def current(db: Database) -> str | None:
    """The revision the database is at."""

    def read(connection: Connection) -> str | None:
        return MigrationContext.configure(connection).get_current_revision()

    async with db.engine.connect() as connection:
        return await connection.run_sync(read)


async def check_migrated(db: Database) -> None:
    """Raises `Unavailable` when the database is away, or has no tables yet."""
    row = await db.fetch_one("SELECT to_regclass('alembic_version') IS NOT NULL AS migrated")
    if row is None or not row["migrated"]:
        raise Unavailable("The database has not been migrated.")


async def _run(db: Database, action: Callable[[Config], object]) -> None:
    def locked(connection: Connection) -> None:
        try:
            action(_config(connection))
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK})
            connection.commit()

    # An index over a big table, or another migration's lock, may take longer than any request.
    patient = db.unhurried()
    try:
        async with patient.engine.connect() as connection:
            await _lock(connection)
            await connection.run_sync(locked)
    finally:
        await patient.close()


async def _lock(connection: AsyncConnection) -> None:
    """Asks again and again: an index that is built beside the traffic waits for every statement
    that is under way, also for one that waits here."""
    query = text("SELECT pg_try_advisory_lock(:key)")
    while not (await connection.execute(query, {"key": LOCK})).scalar_one():
        await connection.commit()
        await asyncio.sleep(_ASK_AGAIN_S)
    await connection.commit()
