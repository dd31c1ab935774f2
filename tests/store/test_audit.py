"""The audit log's rows: append-only, read in pages, by indexes, and forgotten in time."""

import asyncio
import re
from collections.abc import Sequence
from hashlib import md5
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from chatd.api.audit_lines import cursor_of
from chatd.core.auditing import LINE_KINDS, AuditCursor, AuditFilters, LineKind
from chatd.core.errors import BadRequest
from chatd.store import audit, purging
from chatd.store.auditing import page_query, read_lines
from chatd.store.db import Database
from tests.waiting import one, transaction

ENTRY = (
    "INSERT INTO audit_log (action, target_type, target_id, request_id)"
    " VALUES ('update', 'model_config', $1, '')"
)
_COLUMNS = "server_id, server_slug, process, outcome, error_code, duration_ms"
CONNECTION = f"INSERT INTO connection_log ({_COLUMNS}) VALUES ($1, 'demo', 'w', 'connected', '', 3)"
MOVE_CONNECTIONS = (
    "WITH old AS (DELETE FROM connection_log WHERE {which} RETURNING *)"
    f" INSERT INTO connection_log (at, {_COLUMNS}) SELECT {{at}}, {_COLUMNS} FROM old"
)
"""To another time: nobody may change a line."""
CALL = (
    "INSERT INTO tool_calls (chat_id, turn_id, user_id, step, position, tool_call_id, tool_name,"
    " original_name, definition_hash, safe, state, attempt, arguments)"
    " VALUES ($1, $2, $1, 1, 1, 'c', 'demo__add', 'add', '', false, 'done', 1, '{}')"
)

ALL = AuditFilters()


async def add_one_of_each(db: Database) -> None:
    await db.fetch(ENTRY, str(uuid4()))
    await db.fetch(CONNECTION, uuid4())
    await db.fetch(CALL, uuid4(), uuid4())


async def add_many(db: Database, count: int) -> None:
    """Half a year of lines, of 500 chats, servers and users."""
    some = "md5((n % 500)::text)::uuid"
    at = "clock_timestamp() - make_interval(secs => n * 150)"
    await db.fetch(
        f"""INSERT INTO audit_log (at, actor_id, action, target_type, target_id, request_id,
            chat_id, server_id, tool)
        SELECT {at}, {some}, 'update', CASE WHEN n % 5 = 0 THEN 'approval' ELSE 'mcp_server' END,
            {some}::text, '', CASE WHEN n % 5 = 0 THEN {some} END,
            CASE WHEN n % 5 = 0 THEN {some} END, ''
        FROM generate_series(1, {count}) AS n"""
    )
    await db.fetch(
        f"""INSERT INTO tool_calls (intended_at, chat_id, turn_id, user_id, server_id, step,
            position, tool_call_id, tool_name, original_name, definition_hash, safe, state,
            attempt, arguments)
        SELECT {at}, {some}, gen_random_uuid(), {some}, {some}, 1, 1, 'c', 'demo__add', 'add', '',
            false, 'done', 1, '{{}}'
        FROM generate_series(1, {count}) AS n"""
    )
    await db.fetch(
        f"""INSERT INTO connection_log (at, server_id, server_slug, user_id, process, outcome,
            error_code, duration_ms)
        SELECT {at}, {some}, 'demo', {some}, 'w', 'connected', '', 3
        FROM generate_series(1, {count}) AS n"""
    )
    for table in ("audit_log", "tool_calls", "connection_log"):
        await db.fetch(f"ANALYZE {table}")


async def walk(db: Database, filters: AuditFilters = ALL, limit: int = 7) -> list[tuple[int, int]]:
    """Every page, to the end: which lines there were."""
    seen: list[tuple[int, int]] = []
    cursor: AuditCursor | None = None
    while rows := await read_lines(db, filters, cursor, limit):
        seen += [(row["rank"], row["id"]) for row in rows]
        cursor = AuditCursor.parse(str(cursor_of(rows[-1])))
    return seen


# --- append-only


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET actor_id = NULL",
        "DELETE FROM audit_log",
        "DELETE FROM audit_log WHERE false",
        "TRUNCATE audit_log",
        "UPDATE connection_log SET outcome = 'connected'",
        "DELETE FROM connection_log",
        "DELETE FROM connection_log WHERE false",
        "TRUNCATE connection_log",
    ],
)
async def test_no_connection_changes_or_removes_a_line(
    database_url: str, db: Database, statement: str
) -> None:
    await add_one_of_each(db)
    connection = await asyncpg.connect(database_url, ssl=False)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
        await connection.execute(statement)
    await connection.close()
    assert await counts(db) == [1, 1, 1]


async def test_not_even_who_unseals_the_logs_changes_a_connection(db: Database) -> None:
    await add_one_of_each(db)
    with pytest.raises(DBAPIError, match="append-only"):
        await unsealed(db, "UPDATE connection_log SET user_id = NULL")


async def test_who_unseals_the_log_does_so_for_one_transaction(db: Database) -> None:
    await add_one_of_each(db)
    await db.fetch("SELECT set_config('chatd.retention', 'on', true)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await db.fetch("DELETE FROM audit_log")
    await age(db, 400)
    single = Database(db.engine.url.render_as_string(hide_password=False), pool_size=1)
    for forget, table in (
        (purging.forget_entries, "audit_log"),
        (purging.forget_connections, "connection_log"),
    ):
        assert await forget(single, 365) == 1
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await single.fetch(f"DELETE FROM {table}")
    await single.close()


@pytest.mark.parametrize("table", ["audit_log", "connection_log"])
async def test_nobody_truncates_a_log_not_even_unsealed(database_url: str, table: str) -> None:
    connection = await asyncpg.connect(database_url, ssl=False)
    await connection.execute("SET chatd.retention = 'on'")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
        await connection.execute(f"TRUNCATE {table}")
    await connection.close()


# --- pages


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_pages_together_are_the_whole_log_newest_first(db: Database, limit: int) -> None:
    for _ in range(5):
        await add_one_of_each(db)
    # All kinds at the same microsecond: the cursor must tell them apart.
    moment = "'2026-01-01T00:00:00Z'::timestamptz"
    for _ in range(3):
        await add_one_of_each(db)
    await db.fetch(f"UPDATE tool_calls SET intended_at = {moment} WHERE id % 2 = 0")
    await unsealed(db, MOVE_CONNECTIONS.format(at=moment, which="id % 2 = 0"))
    await unsealed(db, f"UPDATE audit_log SET at = {moment} WHERE id % 2 = 0")
    whole = await walk(db, limit=1000)
    assert len(whole) == len(set(whole)) == 24
    assert await walk(db, limit=limit) == whole


async def test_pages_lose_and_double_nothing_while_lines_are_added(db: Database) -> None:
    for _ in range(20):
        await add_one_of_each(db)
    before = await walk(db, limit=1000)

    async def add() -> None:
        for _ in range(40):
            await add_one_of_each(db)

    adding = asyncio.create_task(add())
    walks = [await walk(db, limit=3) for _ in range(3)]
    await adding
    for seen in walks:
        assert len(seen) == len(set(seen))
        assert [line for line in seen if line in set(before)] == before


@pytest.mark.parametrize("text", ["", "x", "MTIz", "é", "x" * 200, "MS4wLg", "MS40LjE", "LTEuMC4x"])
def test_a_cursor_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a cursor"):
        AuditCursor.parse(text)


# --- by indexes

SOME = UUID(md5(b"7").hexdigest())
FILTERS: list[tuple[LineKind | None, dict[str, Any]]] = [
    (None, {}),
    (None, {"user": SOME}),
    (None, {"server": SOME}),
    ("change", {}),
    ("change", {"actor": SOME}),
    ("change", {"target_type": "mcp_server", "target_id": str(SOME)}),
    ("approval", {}),
    ("approval", {"chat": SOME}),
    ("approval", {"server": SOME}),
    ("call", {}),
    ("call", {"chat": SOME}),
    ("call", {"target_type": "tool_call", "target_id": "7"}),
    ("call", {"tool": "add"}),
    ("connection", {}),
    ("connection", {"server": SOME}),
    ("connection", {"user": SOME}),
]


async def test_no_page_reads_a_whole_table(db: Database) -> None:
    await add_many(db, 20_000)
    newest = (await read_lines(db, ALL, None, 1))[0]
    for before in (None, cursor_of(newest)):
        for kind, given in FILTERS:
            sql, values = page_query(AuditFilters(kind=kind, **given), before, 50)
            plan = "\n".join(row[0] for row in await db.fetch(f"EXPLAIN {sql}", *values))
            for table in ("audit_log", "tool_calls", "connection_log"):
                assert f"Seq Scan on {table}" not in plan, (kind, given, plan)


async def test_a_kind_without_what_is_asked_for_has_no_lines(db: Database) -> None:
    await add_one_of_each(db)
    assert await walk(db, AuditFilters(kind="connection", tool="add")) == []
    assert page_query(AuditFilters(kind="change", tool="add"), None, 5) == ("", [])
    kinds = [LINE_KINDS[rank] for rank, _ in await walk(db, AuditFilters(tool="add"))]
    assert kinds == ["call"]


# --- retention


async def unsealed(db: Database, statement: str) -> None:
    async with db.statements() as connection:
        await connection.exec_driver_sql("SET LOCAL chatd.retention = 'on'")
        await connection.exec_driver_sql(statement)


async def age(db: Database, days: int) -> None:
    back = f"interval '{days} days'"
    await unsealed(db, f"UPDATE audit_log SET at = at - {back}")
    await unsealed(db, MOVE_CONNECTIONS.format(at=f"at - {back}", which="true"))
    await db.fetch(f"UPDATE tool_calls SET intended_at = intended_at - {back}")


async def counts(db: Database) -> Sequence[int]:
    tables = ("audit_log", "connection_log", "tool_calls")
    return [(await one(db, f"SELECT count(*) FROM {table}"))[0] for table in tables]


async def test_old_lines_go_and_young_ones_stay(db: Database) -> None:
    await add_one_of_each(db)
    await age(db, 31)
    await add_one_of_each(db)
    for days in (0, 32):
        assert await purging.forget_entries(db, days) == 0
        assert await purging.forget_connections(db, days) == 0
        assert await purging.forget_calls(db, days) is None
    assert await counts(db) == [2, 2, 2]
    assert await purging.forget_entries(db, 30) == 1
    assert await purging.forget_connections(db, 30) == 1
    last = await purging.forget_calls(db, 30)
    assert last is not None
    assert await purging.forget_calls(db, 30, last) is None
    assert await counts(db) == [1, 1, 1]


async def test_a_search_that_takes_too_long_is_refused(db: Database, database_url: str) -> None:
    async with transaction(database_url) as holder:
        await holder.execute("LOCK TABLE tool_calls IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(BadRequest, match="too many lines"):
            await read_lines(db, AuditFilters(outcome="failed"), None, 50, patience_ms=50)
    assert await read_lines(db, AuditFilters(outcome="failed"), None, 50) == []


def test_only_retention_and_erasing_unseal_the_log() -> None:
    root = Path(audit.__file__).parents[2]
    sources = [path for folder in ("chatd", "workers") for path in (root / folder).rglob("*.py")]
    texts = {path.stem: path.read_text() for path in sources}
    for table, writers in (("audit_log", {"purging", "erasing"}), ("connection_log", {"purging"})):
        writes = re.compile(rf"(UPDATE|DELETE FROM|TRUNCATE) {table}")
        assert {name for name, text in texts.items() if writes.search(text)} == writers
    unsealing = {name for name, text in texts.items() if "chatd.retention" in text}
    assert unsealing == {"audit"}
