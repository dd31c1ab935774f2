"""The job that archives and removes: twice at once, and while PostgreSQL is away."""

import asyncio

from redis.asyncio import Redis

from chatd.store.db import Database
from chatd.stream.publisher import Publisher
from tests.seed import Seed, answer
from tests.store.working import finish
from workers.jobs import JobDeps, retain


def context(db: Database, redis: Redis) -> dict[str, JobDeps]:
    return {"deps": JobDeps(db, Publisher(redis), lambda: None)}


async def old_chat(seed: Seed) -> None:
    claim = await seed.claimed()
    await finish(seed, claim, answer("done"))
    for table in ("chats", "chat_messages"):
        await seed.db.fetch(f"UPDATE {table} SET created_at = created_at - interval '10 days'")
    await seed.db.fetch("UPDATE chats SET updated_at = updated_at - interval '10 days'")


async def test_two_workers_at_once_archive_once_then_remove(seed: Seed, redis: Redis) -> None:
    await old_chat(seed)
    await seed.db.fetch(
        "INSERT INTO deployment_settings (key, value)"
        " VALUES ('auto_archive_days', '5'), ('retention_days', '5')"
    )
    deps = context(seed.db, redis)
    await asyncio.gather(retain(deps), retain(deps))
    lines = await seed.db.fetch("SELECT action FROM audit_log")
    assert [line["action"] for line in lines] == ["chat_auto_archive"]
    await seed.db.fetch("UPDATE chats SET archived_at = archived_at - interval '6 days'")
    await asyncio.gather(retain(deps), retain(deps))
    assert await seed.db.fetch("SELECT id FROM chats") == []


async def test_it_waits_for_its_next_time_while_postgresql_is_away(redis: Redis) -> None:
    nowhere = Database("postgresql://x:x@127.0.0.1:9/x", pool_size=1)
    await retain(context(nowhere, redis))
    await nowhere.close()
