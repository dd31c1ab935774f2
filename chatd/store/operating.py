"""Everybody's turns, for operators: what they are and whose, never what is said in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from chatd.core.chats import Actor
from chatd.core.errors import Conflict, NotFound
from chatd.core.times import rfc3339
from chatd.core.turns import TurnStatus
from chatd.store.db import Database
from chatd.store.family import Changed, run
from chatd.store.queueing import CANCEL_QUEUED, interrupt_within
from chatd.store.versions import bump

View = dict[str, Any]

_TURNS = """
SELECT t.id, t.chat_id, t.owner_id, t.kind, t.status, t.attempt, t.worker_id, t.queued_at,
    t.started_at, t.finished_at, t.model_config_id, p.id AS provider_id,
    p.display_name AS provider,
    extract(epoch FROM coalesce(t.finished_at, clock_timestamp()) - t.queued_at)::float8 AS age_s
FROM turns t LEFT JOIN model_configs m ON m.id = t.model_config_id
    LEFT JOIN model_providers p ON p.id = m.provider_id
"""

GET_TURN = f"{_TURNS} WHERE t.id = $1"

FIND_TURN = text("SELECT chat_id, owner_id, status FROM turns WHERE id = :turn")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which turns to list; None: whatever it is."""

    status: TurnStatus | None = None
    owner_id: UUID | None = None
    worker_id: str | None = None
    before_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    owner_id: UUID
    before: str
    """The status it had a moment ago."""
    after: str
    changed: Changed


async def list_turns(db: Database, wanted: Wanted, limit: int) -> Sequence[View]:
    """Newest first."""
    conditions: Mapping[str, object] = {
        "t.owner_id = ${}": wanted.owner_id,
        "t.worker_id = ${}": wanted.worker_id,
        "t.id < ${}": wanted.before_id,
    }
    given = [(sql, value) for sql, value in conditions.items() if value is not None]
    where = [sql.format(place) for place, (sql, _) in enumerate(given, 2)]
    if wanted.status is not None:
        # As a constant: each of the few that are not over has an index of its own.
        where.append(f"t.status = '{wanted.status.value}'")
    sql = f"{_TURNS} WHERE {' AND '.join(where) or 'true'} ORDER BY t.id DESC LIMIT $1"
    return [_view(row) for row in await db.fetch(sql, limit, *(value for _, value in given))]


async def get_turn(db: Database, turn_id: UUID) -> View:
    """Raises `NotFound`."""
    row = await db.fetch_one(GET_TURN, turn_id)
    if row is None:
        raise NotFound("Turn not found.")
    return _view(row)


async def cancel_turn(connection: AsyncConnection, turn_id: UUID) -> Cancelled:
    """End any turn: as its owner's interrupt does, or out of the queue.

    One that is being stopped already stays as it is. Raises `NotFound`, `Conflict` when it is over.
    """
    found = await run(connection, FIND_TURN, turn=turn_id)
    if not found:
        raise NotFound("Turn not found.")
    chat_id, owner_id = found[0].chat_id, found[0].owner_id
    changed = await interrupt_within(connection, Actor(owner_id, "member"), chat_id, turn_id)
    after = (await run(connection, FIND_TURN, turn=turn_id))[0].status
    if after == TurnStatus.QUEUED:
        version = changed.versions[chat_id] = await bump(connection, chat_id)
        await run(connection, CANCEL_QUEUED, turn=turn_id, chat=chat_id, version=version)
        after = TurnStatus.CANCELLED
    elif not changed.versions and after != TurnStatus.INTERRUPTING:
        raise Conflict("The turn is over.", detail=after)
    return Cancelled(owner_id, found[0].status, after, changed)


def _view(row: Any) -> View:
    ids = ("id", "chat_id", "owner_id", "model_config_id", "provider_id")
    times = ("queued_at", "started_at", "finished_at")
    return {
        **{name: str(row[name]) if row[name] else None for name in ids},
        **{name: rfc3339(row[name]) for name in times},
        **{name: row[name] for name in ("kind", "status", "attempt", "worker_id", "provider")},
        "age_s": round(row["age_s"], 3),
    }
