"""`chatd migrate`: bring the database to this release's schema."""

import asyncio
from typing import Annotated

import typer

from chatd import logs
from chatd.core.errors import Unavailable
from chatd.core.redaction import redact_text
from chatd.settings import DatabaseSettings, load
from chatd.store import migrations
from chatd.store.db import Database, away


def migrate(
    to: Annotated[str, typer.Option(help="Up to this revision.")] = "head",
    down: Annotated[str | None, typer.Option(help="Down to this revision; base: to none.")] = None,
    revision: Annotated[
        str | None, typer.Option(help="Write a new migration with this message.")
    ] = None,
) -> None:
    """Migrate the database. Running it twice, or twice at once, is harmless."""
    settings = load(DatabaseSettings)
    logs.configure("console", "warning")
    typer.echo(asyncio.run(_migrate(settings, to, down, revision)))


async def _migrate(
    settings: DatabaseSettings, to: str, down: str | None, revision: str | None
) -> str:
    db = Database(settings.database_url.get_secret_value(), pool_size=1, application="chatd cli")
    try:
        before = await migrations.current(db)
        if revision is not None:
            await migrations.write_revision(db, revision)
            return f"A new migration is in alembic/versions: {revision}"
        if down is not None:
            await migrations.downgrade(db, down)
        else:
            await migrations.upgrade(db, to)
        after = await migrations.current(db)
    except Exception as error:
        if away(error):
            raise Unavailable("The database is away.", detail=redact_text(str(error))) from error
        raise
    finally:
        await db.close()
    if before == after:
        return f"The database is at {after or 'no revision'} already."
    return f"The database went from {before or 'no revision'} to {after or 'no revision'}."
