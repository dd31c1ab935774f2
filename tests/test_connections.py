"""The connection log's writer: batches, nothing lost in a short outage, nothing blocked in one."""

from uuid import uuid4

import pytest

from chatd import telemetry
from chatd.connections import BATCH, ConnectionLog
from chatd.core.connections import ConnectionEvent
from chatd.dev.postgres import Postgres
from chatd.store.db import Database
from tests.waiting import one, until

SERVER = uuid4()


def event(code: str = "") -> ConnectionEvent:
    return ConnectionEvent(SERVER, "demo", None, "failed" if code else "connected", code)


def dropped() -> float:
    value = telemetry.REGISTRY.get_sample_value("chatd_connection_log_dropped_total")
    assert value is not None
    return value


async def written(db: Database) -> list[str]:
    rows = await db.fetch("SELECT error_code FROM connection_log ORDER BY id")
    return [row["error_code"] for row in rows]


async def test_while_postgresql_is_away_lines_wait_up_to_a_bound(db: Database) -> None:
    nowhere = Database("postgresql://x:x@127.0.0.1:9/x", pool_size=1)
    log, before = ConnectionLog(nowhere, "w", room=3), dropped()
    for place in range(5):
        log.add(event(str(place + 1)))
    await log.flush()
    assert dropped() - before == 2
    await log.close()
    assert dropped() - before == 5
    await nowhere.close()


async def test_lines_are_written_when_postgresql_is_back(db: Database, postgres: Postgres) -> None:
    log = ConnectionLog(db, "w")
    postgres.kill()
    log.add(event("1"))
    log.add(event("2"))
    await log.flush()
    await postgres.restart()
    await log.flush()
    assert await written(db) == ["1", "2"]
    await log.flush()
    assert len(await written(db)) == 2


async def test_a_line_that_postgresql_refuses_holds_up_none_after_it(db: Database) -> None:
    log, before = ConnectionLog(db, "w"), dropped()
    log.add(ConnectionEvent(SERVER, "demo", None, "connected", duration_ms=2**40))
    await log.flush()
    log.add(event("after"))
    await log.flush()
    assert dropped() - before == 1
    assert await written(db) == ["after"]


@pytest.mark.parametrize("count", [1, BATCH + 1])
async def test_lines_are_written_by_themselves_in_their_order(db: Database, count: int) -> None:
    log = ConnectionLog(db, "worker-1")
    log.start()
    codes = [str(place + 1) for place in range(count)]
    for code in codes:
        log.add(event(code))

    async def all_there() -> bool:
        return len(await written(db)) == count

    await until(all_there)
    assert await written(db) == codes
    row = await one(db, "SELECT process, server_id, at <= clock_timestamp() FROM connection_log")
    assert tuple(row) == ("worker-1", SERVER, True)
    await log.close()


async def test_closing_writes_what_is_left(db: Database) -> None:
    log = ConnectionLog(db, "w")
    log.start()
    log.add(event("last"))
    await log.close()
    assert await written(db) == ["last"]
