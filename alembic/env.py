"""Runs migrations over the connection that `chatd migrate` hands in."""

from alembic import context
from sqlmodel import SQLModel

import chatd.store.tables

assert chatd.store.tables.Chat.metadata is SQLModel.metadata


def run(connection: object) -> None:
    context.configure(
        connection=connection,  # pyright: ignore[reportArgumentType]
        target_metadata=SQLModel.metadata,
        compare_server_default=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["connection"])
