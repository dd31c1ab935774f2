"""The rows of live processes: a beat, a goodbye, and who lacks a key."""

from collections.abc import Collection
from dataclasses import replace

from chatd.core.health import LOST_S, ProcessFacts, ProcessKind
from chatd.store.db import Database, dump, load

_BEAT = """
WITH forgotten AS (
    SELECT id FROM processes WHERE beat_at < clock_timestamp() - interval '1 day'
    FOR UPDATE SKIP LOCKED
), removed AS (
    DELETE FROM processes USING forgotten WHERE processes.id = forgotten.id
)
INSERT INTO processes (id, kind, version, capacity, running, key_ids)
VALUES ($1, $2, $3, $4, $5, $6::jsonb)
ON CONFLICT (id) DO UPDATE SET beat_at = clock_timestamp(), capacity = excluded.capacity,
    running = excluded.running, key_ids = excluded.key_ids
"""

_LEAVE = """
UPDATE processes SET left_at = at.now, beat_at = at.now FROM (SELECT clock_timestamp() AS now) at
WHERE id = $1
"""

_END = "UPDATE processes SET left_at = clock_timestamp(), running = 0 WHERE id = $1"

_LIST = """
SELECT id, kind, version, started_at, beat_at, left_at, capacity, running, key_ids,
    extract(epoch FROM clock_timestamp() - beat_at)::float8 AS beat_age_s,
    coalesce(extract(epoch FROM clock_timestamp() - left_at), 0)::float8 AS left_age_s
FROM processes ORDER BY started_at, id
"""

AT_WORK = f"""beat_at > clock_timestamp() - make_interval(secs => {LOST_S})
    AND (left_at IS NULL OR beat_at >= left_at)"""
"""One that said goodbye beats until it has ended: till then it reads secrets."""

_LACKING = f"SELECT kind, id FROM processes WHERE {AT_WORK} AND NOT key_ids ? $1 ORDER BY kind, id"


async def beat(
    db: Database,
    process_id: str,
    kind: ProcessKind,
    version: str,
    *,
    capacity: int,
    running: int,
    key_ids: Collection[str],
) -> None:
    """It lives. Also removes the rows of processes that are gone for a day."""
    await db.fetch(_BEAT, process_id, kind, version, capacity, running, dump(sorted(key_ids)))


async def leave(db: Database, process_id: str) -> None:
    """It has begun to end; what it has in hand it still does."""
    await db.fetch(_LEAVE, process_id)


async def end(db: Database, process_id: str) -> None:
    """It does nothing any more."""
    await db.fetch(_END, process_id)


async def list_processes(db: Database) -> list[ProcessFacts]:
    """Also those that are gone; ages by the database's clock."""
    return [
        replace(ProcessFacts(**row), key_ids=frozenset(load(row["key_ids"])))
        for row in await db.fetch(_LIST)
    ]


async def lacking(db: Database, key_id: str) -> list[str]:
    """Processes at work that cannot read what this key encrypts, as `worker host:1:ab`."""
    return [f"{row['kind']} {row['id']}" for row in await db.fetch(_LACKING, key_id)]
