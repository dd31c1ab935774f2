"""The ledger, as tests read it."""

from typing import Any
from uuid import UUID

from chatd.store.db import Database
from tests.seed import Seed


async def ledger(db: Database, chat_id: UUID) -> list[Any]:
    """The chat's lines, oldest first."""
    return list(
        await db.fetch("SELECT * FROM usage_entries WHERE chat_id = $1 ORDER BY id", chat_id)
    )


async def kinds(db: Database, chat_id: UUID) -> list[str]:
    return [row["kind"] for row in await ledger(db, chat_id)]


async def priced(seed: Seed) -> None:
    """Give the seed's model prices."""
    await seed.db.fetch(
        "UPDATE model_configs SET options = jsonb_build_object('cost', $2::text::jsonb)"
        " WHERE id = $1",
        seed.model_id,
        '{"input": 2.0, "output": 10.0}',
    )
