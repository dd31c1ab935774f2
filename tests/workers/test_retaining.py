"""The job that archives and removes: twice at once, and while PostgreSQL is away."""

import asyncio

from redis.asyncio import Redis

from chatd.store.db import Database
from chatd.store.oauth_states import create_state
from chatd.store.sessions import create_session
from chatd.stream.publisher import Publisher
from tests.seed import KEYS, Seed, answer
from tests.store.working import finish
from workers.jobs import JobDeps, forget, retain


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
    await forget(context(nowhere, redis))
    await nowhere.close()


async def test_lines_of_the_audit_log_go_when_they_have_been_kept_long_enough(
    db: Database, redis: Redis
) -> None:
    line = (
        "INSERT INTO {table} (at, {columns})"
        " SELECT clock_timestamp() - interval '20 days', {values}"
        " FROM generate_series(1, 5000)"
    )
    entry = line.format(
        table="audit_log",
        columns="action, target_type, target_id, request_id",
        values="'update', 'chat', '', ''",
    )
    connection = line.format(
        table="connection_log",
        columns="server_id, server_slug, process, outcome, error_code, duration_ms",
        values="gen_random_uuid(), '', '', 'failed', '', 0",
    )
    for statement in (entry, connection):
        await db.fetch(statement)
    deps = context(db, redis)

    async def left() -> list[int]:
        tables = ("audit_log", "connection_log")
        rows = [await db.fetch_one(f"SELECT count(*) AS n FROM {table}") for table in tables]
        return [row["n"] for row in rows if row is not None]

    await forget(deps)
    assert await left() == [5000, 5000]
    await db.fetch(
        "INSERT INTO deployment_settings (key, value) VALUES"
        """ ('audit', '{"retention_days": 10, "connection_retention_days": 0}')"""
    )
    await asyncio.gather(forget(deps), forget(deps))
    assert await left() == [0, 5000]


async def test_flows_and_sessions_that_are_over_are_removed(seed: Seed, redis: Redis) -> None:
    db, user_id = seed.db, seed.actor.user_id
    for seconds in (60.0, -90_000.0):
        await create_state(db, KEYS, kind="login", data={}, seconds=seconds, cookie="browser")
        async with db.transaction() as session:
            await create_session(session, user_id, seconds=seconds)
    deps = context(db, redis)
    await asyncio.gather(retain(deps), retain(deps))
    await asyncio.gather(forget(deps), forget(deps))
    assert len(await db.fetch("SELECT 1 FROM oauth_states")) == 1
    assert len(await db.fetch("SELECT 1 FROM sessions")) == 1
