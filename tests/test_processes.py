"""That a process lives: beats through outages, goodbyes, and keys that others know otherwise."""

import asyncio
import signal
from typing import Any

import pytest

from chatd.core.errors import Unavailable
from chatd.core.health import ProcessFacts
from chatd.dev.postgres import Postgres
from chatd.processes import Heartbeat, Load, check_keys, end_process, new_process_id
from chatd.store.db import Database
from chatd.store.keys import OtherKey, list_keys
from chatd.store.processes import list_processes
from chatd.store.secrets import KeyRing
from tests.waiting import until

KEYS = KeyRing({"new": b"n" * 32, "old": b"o" * 32})
FORGED = KeyRing({"new": b"f" * 32, "old": b"o" * 32})
NOWHERE = "postgresql://x@127.0.0.1:9/none"


def heart(db: Database, keys: KeyRing = KEYS, **more: Any) -> Heartbeat:
    return Heartbeat(db, keys, "worker", "w", load=lambda: Load(7, 2), **more)


async def only(db: Database) -> ProcessFacts:
    (found,) = await list_processes(db)
    return found


async def beaten(db: Database) -> bool:
    return bool(await list_processes(db))


async def test_a_process_beats_as_soon_as_it_starts_and_again(db: Database) -> None:
    async with heart(db, every_s=0.01):
        await until(lambda: beaten(db))
        first = await only(db)

        async def again() -> bool:
            return (await only(db)).beat_at > first.beat_at

        await until(again)
    assert (first.kind, first.capacity, first.running) == ("worker", 7, 2)
    assert first.key_ids == {"new", "old"}
    assert first.version


async def test_an_outage_of_the_database_ends_nothing(
    db: Database, database_url: str, postgres: Postgres
) -> None:
    async with heart(db, every_s=0.01):
        await until(lambda: beaten(db))
        postgres.kill()
        with pytest.raises(Unavailable):
            await heart(db).beat()
        await postgres.restart()
        watcher = Database(database_url, pool_size=1)
        await until(lambda: beaten(watcher))
        before = await only(watcher)

        async def beats() -> bool:
            return (await only(watcher)).beat_at > before.beat_at

        await until(beats)
        await watcher.close()


async def test_a_process_that_starts_and_ends_without_a_database() -> None:
    db = Database(NOWHERE, pool_size=1)
    async with heart(db) as beating:
        beating.goodbye()
    await check_keys(NOWHERE, KEYS)
    await db.close()


async def test_a_goodbye_is_said_at_once_and_the_end_after_it(db: Database) -> None:
    async with heart(db) as beating:
        await until(lambda: beaten(db))
        beating.goodbye()
        beating.goodbye()

        async def left() -> bool:
            return (await only(db)).left_at is not None

        await until(left)
        at_goodbye = await only(db)
        assert at_goodbye.running == 2
        assert at_goodbye.left_at == at_goodbye.beat_at
    ended = await only(db)
    assert ended.left_at is not None
    assert ended.left_at > ended.beat_at
    assert ended.running == 0


async def test_a_process_that_is_cancelled_still_says_goodbye(db: Database) -> None:
    async def work() -> None:
        async with heart(db):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await until(lambda: beaten(db))
    task.cancel()
    await asyncio.wait({task})
    assert (await only(db)).left_at is not None


async def test_another_key_under_the_same_id_is_refused(db: Database, database_url: str) -> None:
    await check_keys(database_url, KEYS)
    await check_keys(database_url, KEYS)
    with pytest.raises(OtherKey, match="another key under the id new") as refused:
        await check_keys(database_url, FORGED)
    assert "old" not in refused.value.message
    known = {key.id: key.fingerprint for key in await list_keys(db)}
    assert known == KEYS.fingerprints


async def test_a_key_that_others_know_otherwise_is_none_it_can_read_with(
    db: Database, database_url: str
) -> None:
    """As when the database came back after the process had started."""
    await check_keys(database_url, KEYS)
    await heart(db, FORGED, end=lambda: None).beat()
    assert (await only(db)).key_ids == {"old"}


async def test_a_process_whose_key_others_know_otherwise_ends_itself_once(
    db: Database, database_url: str
) -> None:
    """It started while the database was away, or its key's id was given to another meanwhile."""
    ends: list[str] = []
    late = heart(db, FORGED, end=lambda: ends.append("late"))
    known = heart(db, end=lambda: ends.append("known"))
    await check_keys(database_url, KEYS)
    for _ in range(2):
        await late.beat()
        await known.beat()
    assert ends == ["late"]
    await db.fetch("UPDATE encryption_keys SET fingerprint = 'another' WHERE id = 'old'")
    await known.beat()
    assert ends == ["late", "known"]


def test_a_process_ends_itself_as_an_operator_would() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        end_process()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_two_process_ids_are_never_the_same() -> None:
    assert new_process_id() != new_process_id()
