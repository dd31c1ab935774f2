"""Rotation of keys while administrators write, stopped half way, twice at once, with gaps."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from chatd.core.errors import Conflict
from chatd.rotation import KeyMissing, Rotated, outdated, rotate
from chatd.store import keys as store, models, processes, servers
from chatd.store.db import Database
from chatd.store.health import read_providers, read_servers
from chatd.store.models import ProviderSettings
from chatd.store.secrets import KeyRing
from tests.seed import server_settings
from tests.waiting import one, soon, transaction

OLD, NEW = b"o" * 32, b"n" * 32
BEFORE = KeyRing({"old": OLD})
ROTATING = KeyRing({"new": NEW, "old": OLD})
AFTER = KeyRing({"new": NEW})


def keyed(secret: str = "s3cret") -> dict[str, Any]:
    value = SecretStr(secret)
    return {"auth_type": "api_key", "api_key_header": "X-Key", "api_key_value": value}


def headed() -> dict[str, Any]:
    return {"auth_type": "custom_headers", "custom_headers": {"X-A": SecretStr("a")}}


async def add_server(db: Database, slug: str, keys: KeyRing = BEFORE, **more: Any) -> UUID:
    async with db.transaction() as session:
        settings = server_settings(slug, **(more or keyed()))
        return UUID((await servers.create_server(session, keys, settings))["id"])


def sealed(secret: str, row_id: UUID) -> tuple[bytes, str]:
    """A server's API key as a process writes it that still has the old key first."""
    return BEFORE.encrypt(secret, table="mcp_server_configs", column="api_key_value", row_id=row_id)


async def populate(db: Database, servers_count: int = 3) -> None:
    """A provider and servers, all encrypted with the old key, which is registered."""
    await store.register_keys(db, ROTATING.fingerprints)
    async with db.transaction() as session:
        provider = ProviderSettings("openai", "openai", api_key=SecretStr("sk-1"))
        await models.create_provider(session, BEFORE, provider)
    await add_server(db, "headed", **headed())
    for number in range(servers_count):
        await add_server(db, f"s{number}")


async def unreadable(db: Database, keys: KeyRing) -> list[str]:
    """What this ring cannot read."""
    of_servers = [found.facts.unreadable for found in await read_servers(db, keys)]
    of_providers = [facts.unreadable for facts in await read_providers(db, keys)]
    return [why for whys in of_servers for why in whys] + [why for why in of_providers if why]


async def used(db: Database) -> set[str | None]:
    return {use.key_id for use in await store.list_uses(db)}


async def turn(db: Database, told: Callable[[int], None] = lambda _: None) -> Rotated:
    return await rotate(db, ROTATING, told)


async def rotation(db: Database) -> Any:
    return await one(db, "SELECT * FROM encryption_keys WHERE id = 'new'")


async def test_everything_reads_without_the_old_key_afterwards(db: Database) -> None:
    await populate(db)
    versions = "SELECT id, version, updated_at FROM mcp_server_configs ORDER BY id"
    before = await db.fetch(versions)
    assert len(await unreadable(db, AFTER)) == 5
    told: list[int] = []
    done = await turn(db, told.append)
    assert (done.values, done.changed, done.left, done.unreadable) == (5, 0, 0, {})
    assert sum(told) == 5
    assert await unreadable(db, AFTER) == []
    assert await used(db) == {"new"}
    assert await db.fetch(versions) == before
    row = await rotation(db)
    assert row["rotated"] == 5
    assert row["rotation_ended_at"] is not None


async def test_a_second_rotation_changes_nothing(db: Database) -> None:
    await populate(db)
    await turn(db)
    read = "SELECT api_key_value FROM mcp_server_configs ORDER BY id"
    before = await db.fetch(read)
    assert (await turn(db)).values == 0
    assert await db.fetch(read) == before


async def test_a_value_nobody_can_read_is_told_and_the_others_go_on(db: Database) -> None:
    await populate(db, servers_count=0)
    lost = await add_server(db, "lost", KeyRing({"gone": b"g" * 32}))
    moved = await add_server(db, "moved")
    await add_server(db, "z")
    await db.fetch(
        """UPDATE mcp_server_configs SET api_key_value = (
            SELECT api_key_value FROM mcp_server_configs WHERE slug = 'z') WHERE id = $1""",
        moved,
    )
    done = await turn(db)
    assert (done.values, done.left) == (3, 0)
    why = {row_id: text for (_, row_id), text in done.unreadable.items()}
    assert set(why) == {lost, moved}
    assert "'gone'" in why[lost]
    assert "was changed, or written for another row" in why[moved]
    again = await turn(db)
    assert (again.values, set(again.unreadable)) == (0, set(done.unreadable))


async def test_a_rotation_that_was_stopped_goes_on_where_it_was(
    db: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BATCH", 1)
    await populate(db)
    last = await one(db, "SELECT id FROM mcp_server_configs ORDER BY id DESC LIMIT 1")
    told: list[int] = []
    async with transaction(database_url) as holder:
        await holder.execute("SELECT 1 FROM mcp_server_configs WHERE id = $1 FOR UPDATE", last[0])
        task = asyncio.create_task(turn(db, told.append))
        (pid,) = await holder.waiting()
        task.cancel()
        await asyncio.wait({task})
        # Else it would still do what it waits to do.
        await holder.execute("SELECT pg_terminate_backend($1, 5000)", pid)
    assert task.cancelled()
    assert 0 < sum(told) < 5
    stopped = await rotation(db)
    assert stopped["rotated"] == sum(told)
    assert stopped["rotation_ended_at"] is None
    assert await used(db) == {"new", "old"}
    assert await unreadable(db, ROTATING) == []
    # Behind its back, while it stood still: a row before the last one done.
    early = UUID(int=1)
    await db.fetch(
        """UPDATE mcp_server_configs SET id = $1, api_key_value = $2, api_key_value_key_id = $3
        WHERE slug = 's0'""",
        early,
        *sealed("early", early),
    )
    done = await turn(db)
    assert (done.values, done.left) == (4, 0)
    assert await unreadable(db, AFTER) == []
    assert (await rotation(db))["rotated"] == sum(told) + 4


async def test_what_an_administrator_writes_meanwhile_stays(
    db: Database, database_url: str
) -> None:
    await populate(db, servers_count=0)
    busy = await add_server(db, "busy")
    newer = sealed("newer", busy)
    async with transaction(database_url) as holder:
        await holder.execute(
            """UPDATE mcp_server_configs SET api_key_value = $2, api_key_value_key_id = $3
            WHERE id = $1""",
            busy,
            *newer,
        )
        task = asyncio.create_task(turn(db))
        await holder.waiting()
    done = await task
    assert (done.values, done.changed, done.left) == (2, 1, 1)
    row = await one(db, "SELECT api_key_value FROM mcp_server_configs WHERE slug = 'busy'")
    assert row["api_key_value"] == newer[0]
    assert (await turn(db)).values == 1
    assert await unreadable(db, AFTER) == []


async def test_the_second_of_two_operators_is_told(db: Database, database_url: str) -> None:
    await populate(db)
    async with transaction(database_url) as holder:
        await holder.execute("LOCK TABLE mcp_server_configs")
        first = asyncio.create_task(turn(db))
        await holder.waiting()
        other = Database(database_url, pool_size=2)
        with pytest.raises(Conflict, match="Another rotation is under way"):
            await turn(other)
        await other.close()
    assert (await first).values == 5
    assert (await turn(db)).values == 0


async def test_a_process_without_the_new_key_is_named_and_nothing_changes(db: Database) -> None:
    await populate(db)
    load: dict[str, Any] = {"capacity": 1, "running": 0}
    await processes.beat(db, "host:1:aa", "worker", "1", key_ids=["old"], **load)
    with pytest.raises(KeyMissing, match="lack the key new: worker host:1:aa"):
        await turn(db)
    assert await used(db) == {"old"}
    await processes.beat(db, "host:1:aa", "worker", "1", key_ids=["old", "new"], **load)
    assert (await turn(db)).values == 5


async def test_a_key_that_others_know_otherwise_encrypts_nothing(db: Database) -> None:
    """Also when nobody could compare them before."""
    await populate(db)
    forged = KeyRing({"new": b"f" * 32, "old": OLD})
    with pytest.raises(store.OtherKey, match="another key under the id new"):
        await rotate(db, forged, lambda _: None)
    assert await used(db) == {"old"}
    assert (await rotation(db))["rotation_started_at"] is None


async def test_a_process_without_the_new_key_that_starts_meanwhile_stops_it(
    db: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BATCH", 1)
    await populate(db)
    told: list[int] = []
    async with transaction(database_url) as holder:
        await holder.execute("LOCK TABLE model_providers")
        task = asyncio.create_task(turn(db, told.append))
        await holder.waiting()
        await soon(lambda: len(told) == 4 or task.done())
        await processes.beat(db, "late", "api", "1", capacity=0, running=0, key_ids=["old"])
    with pytest.raises(KeyMissing, match="api late"):
        await task
    assert await used(db) == {"new", "old"}


def test_what_is_to_be_done_is_what_other_keys_encrypted() -> None:
    column = store.SECRET_COLUMNS[0]
    uses = [store.KeyUse(column, key_id, 2) for key_id in ("new", "old", None)]
    assert outdated(uses, "new") == 4
