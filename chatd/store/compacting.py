"""The one transaction that puts a summary in the place of a history."""

from collections.abc import Sequence
from dataclasses import dataclass

from chatd.core.messages import NewMessage, Visibility
from chatd.core.work import Claim, Committed, Notice, message_row
from chatd.store import hot
from chatd.store.db import Database, dump
from chatd.store.work import committed_from, written_once


@dataclass(frozen=True, slots=True)
class CompactionRow:
    """`compressed`: stands for what was before it; an edit finds the model's beginning by it."""

    message: NewMessage
    visibility: Visibility
    compressed: bool = True


async def commit_compaction(
    db: Database,
    claim: Claim,
    rows: Sequence[CompactionRow],
    notices: Sequence[Notice] = (),
) -> Committed:
    """The first row becomes what the model's history begins with.

    Their positions are consecutive and negative: before all that the step itself makes.
    """
    columns = [
        message_row(row.message) | {"visibility": row.visibility, "compressed": row.compressed}
        for row in rows
    ]
    written = await written_once(
        db,
        claim,
        [row.message for row in rows],
        lambda: db.fetch_one(
            hot.COMMIT_COMPACTION,
            claim.chat_id,
            claim.turn_id,
            claim.lease_id,
            dump(columns),
            dump(notices),
        ),
    )
    return committed_from(written)
