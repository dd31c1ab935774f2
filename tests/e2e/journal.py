"""A look behind the front door: the journal of tool calls, and what the demo server wrote."""

from collections.abc import Sequence
from typing import Any

from chatd.store.db import Database
from tests.e2e.client import Posted
from tests.e2e.fleet import Fleet
from tests.waiting import one, until

CALLS = """
SELECT tool_name, state, attempt, sent_at, finished_at, result #>> '{result}' AS result
FROM tool_calls
WHERE turn_id = $1 ORDER BY step, position
"""

TURN = "SELECT status, attempt, lost, commits, worker_id FROM turns WHERE id = $1"


async def journaled(db: Database, posted: Posted) -> Sequence[Any]:
    """The turn's tool calls as they are journaled, in order."""
    return await db.fetch(CALLS, posted.turn_id)


async def states(db: Database, posted: Posted) -> list[str]:
    return [call["state"] for call in await journaled(db, posted)]


async def turn_row(db: Database, posted: Posted) -> Any:
    """What the front door does not show of a turn."""
    return await one(db, TURN, posted.turn_id)


async def reaches(db: Database, posted: Posted, *wanted: str) -> None:
    """Returns when the turn's calls are in these states."""

    async def there() -> bool:
        return await states(db, posted) == list(wanted)

    await until(there)


def appended(fleet: Fleet, text: str) -> int:
    """How often the demo server's one unsafe tool ran with this text."""
    file = fleet.folder / "logs" / "demo-journal.txt"
    return file.read_text().splitlines().count(text) if file.exists() else 0
