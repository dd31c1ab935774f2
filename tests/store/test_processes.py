"""Rows of processes: beats, goodbyes, and who lacks a key."""

from chatd.core.health import ProcessFacts
from chatd.store import processes
from chatd.store.db import Database


async def beat(db: Database, name: str = "w", running: int = 0, *keys: str) -> None:
    await processes.beat(db, name, "worker", "1", capacity=5, running=running, key_ids=keys)


async def listed(db: Database) -> dict[str, ProcessFacts]:
    return {process.id: process for process in await processes.list_processes(db)}


async def aged(db: Database, name: str, seconds: float) -> None:
    await db.fetch(
        "UPDATE processes SET beat_at = beat_at - make_interval(secs => $2) WHERE id = $1",
        name,
        seconds,
    )


async def test_a_beat_tells_what_is_new_and_keeps_when_it_started(db: Database) -> None:
    await beat(db)
    first = (await listed(db))["w"]
    await beat(db, "w", 3, "k2", "k1")
    second = (await listed(db))["w"]
    assert (second.capacity, second.running) == (5, 3)
    assert second.key_ids == {"k1", "k2"}
    assert second.started_at == first.started_at
    assert second.beat_at > first.beat_at
    assert second.live


async def test_a_process_without_beats_is_not_live(db: Database) -> None:
    await beat(db)
    await aged(db, "w", 16)
    found = (await listed(db))["w"]
    assert not found.live
    assert 16 < found.beat_age_s < 60


async def test_a_beat_does_not_take_a_goodbye_back(db: Database) -> None:
    await beat(db)
    await processes.leave(db, "w")
    await beat(db)
    assert (await listed(db))["w"].left_at is not None
    assert not (await listed(db))["w"].live


async def test_the_rows_of_processes_gone_for_a_day_go_with_anybodys_beat(db: Database) -> None:
    for name in ("old", "young", "w"):
        await beat(db, name)
    await aged(db, "old", 24 * 3600 + 1)
    await aged(db, "young", 23 * 3600)
    await beat(db)
    assert set(await listed(db)) == {"young", "w"}


async def test_who_lacks_a_key_is_named_until_it_has_ended(db: Database) -> None:
    await beat(db, "has", 0, "old", "new")
    await beat(db, "lacks", 0, "old")
    await beat(db, "lost", 0, "old")
    await aged(db, "lost", 16)
    assert await processes.lacking(db, "new") == ["worker lacks"]
    await processes.leave(db, "lacks")
    assert await processes.lacking(db, "new") == ["worker lacks"]
    await beat(db, "lacks", 1, "old")
    assert await processes.lacking(db, "new") == ["worker lacks"]
    await processes.end(db, "lacks")
    assert await processes.lacking(db, "new") == []
