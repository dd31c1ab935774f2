"""Up, down and up again; twice at once; and the tables are what the code says they are."""

import asyncio
from functools import partial

import asyncpg
import pytest
from sqlalchemy.exc import ProgrammingError
from sqlmodel import SQLModel

from chatd.store import migrations
from chatd.store.db import Database
from tests.waiting import WITHIN_S, transaction, until

BEFORE = "0002"
"""The release that serves while 0003 is applied."""

SERVING = "0003"
"""The one that serves while 0004 is."""


async def shape(db: Database) -> list[str]:
    """Every column, constraint, index and sequence of the schema."""
    rows = await db.fetch(
        """SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable
            || ' ' || coalesce(column_default, '') AS line
        FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT sequencename FROM pg_sequences WHERE schemaname = 'public'
        ORDER BY line"""
    )
    return [row["line"] for row in rows]


async def test_up_down_and_up_again_gives_the_same_schema(empty_database: str) -> None:
    db = Database(empty_database, pool_size=1)
    assert await migrations.current(db) is None
    await migrations.upgrade(db)
    assert await migrations.current(db) == migrations.head()
    first = await shape(db)
    await migrations.downgrade(db, "base")
    left = [line for line in await shape(db) if "alembic_version" not in line]
    assert left == []
    assert await migrations.current(db) is None
    await migrations.upgrade(db)
    assert await shape(db) == first
    await db.close()


async def test_every_migration_can_be_taken_back_alone(empty_database: str) -> None:
    db = Database(empty_database, pool_size=1)
    await migrations.upgrade(db)
    while await migrations.current(db) is not None:
        before = await migrations.current(db)
        await migrations.downgrade(db, "-1")
        after = await migrations.current(db)
        await migrations.upgrade(db, "+1")
        assert await migrations.current(db) == before
        await migrations.downgrade(db, "-1")
        assert await migrations.current(db) == after
    await db.close()


async def test_the_tables_in_code_are_those_in_the_database(db: Database) -> None:
    await migrations.check(db)


async def test_the_tables_in_code_can_be_created(empty_database: str) -> None:
    db = Database(empty_database, pool_size=1)
    async with db.engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)
    await db.close()


async def test_two_upgrades_at_once_are_harmless(empty_database: str) -> None:
    databases = [Database(empty_database, pool_size=1) for _ in range(3)]
    await asyncio.gather(*(migrations.upgrade(db) for db in databases))
    for db in databases:
        assert await migrations.current(db) == migrations.head()
        await db.close()


async def test_a_failed_upgrade_leaves_no_lock_behind(empty_database: str) -> None:
    connection = await asyncpg.connect(empty_database, ssl=False)
    await connection.execute("CREATE TABLE chats (id int)")
    db = Database(empty_database, pool_size=1)
    with pytest.raises(ProgrammingError, match="chats"):
        await migrations.upgrade(db)
    assert await migrations.current(db) is None
    await connection.execute("DROP TABLE chats")
    await migrations.upgrade(db)
    assert await migrations.current(db) == migrations.head()
    await connection.close()
    await db.close()


async def test_migrations_outlast_the_statement_timeout(empty_database: str) -> None:
    db = Database(empty_database, pool_size=2, statement_timeout_ms=50)
    with pytest.raises(asyncpg.QueryCanceledError):
        await db.fetch("SELECT pg_sleep(60)")
    await migrations.upgrade(db, BEFORE)
    async with transaction(empty_database) as holder:
        await holder.execute("LOCK TABLE tool_calls")
        migrating = asyncio.create_task(migrations.upgrade(db))
        await holder.waiting(1)

        async def long_past_the_timeout() -> bool:
            row = await db.fetch_one(
                """SELECT clock_timestamp() - max(query_start) > interval '300 ms' AS long
                FROM pg_stat_activity WHERE application_name = 'chatd migrate'"""
            )
            return row is not None and bool(row["long"])

        await until(long_past_the_timeout)
    await migrating
    assert await migrations.current(db) == migrations.head()
    await db.close()


async def test_the_release_before_writes_while_the_journals_index_is_built(
    empty_database: str,
) -> None:
    db = Database(empty_database, pool_size=1)
    await migrations.upgrade(db, BEFORE)
    async with transaction(empty_database) as holder:
        await holder.execute("LOCK TABLE tool_calls IN ROW EXCLUSIVE MODE")
        migrating = asyncio.create_task(migrations.upgrade(db))
        await holder.waiting(1)
        async with asyncio.timeout(WITHIN_S):
            await db.fetch("UPDATE tool_calls SET result = NULL")
        assert not migrating.done()
    await migrating
    assert await migrations.current(db) == migrations.head()
    await db.close()


@pytest.mark.parametrize("first", ["turns", "files", "audit_log"])
async def test_no_command_of_the_release_before_deadlocks_with_a_migration(
    empty_database: str, first: str
) -> None:
    db = Database(empty_database, pool_size=1)
    await migrations.upgrade(db, BEFORE)
    async with transaction(empty_database) as holder:
        await holder.execute(f"LOCK TABLE {first} IN ROW EXCLUSIVE MODE")
        migrating = asyncio.create_task(migrations.upgrade(db))
        await until(partial(_indexed, db))
        for table in ("audit_log", "policy_state", "tool_calls", "files", "users", "turns"):
            await holder.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE")
        assert not migrating.done()
    await migrating
    assert await migrations.current(db) == migrations.head()
    await db.close()


async def _indexed(db: Database) -> bool:
    """Whether the migration has come to what it does in one transaction."""
    row = await db.fetch_one(
        """SELECT indisvalid FROM pg_index
        WHERE indexrelid = to_regclass('ix_tool_calls_intended')"""
    )
    return row is not None and bool(row["indisvalid"])


async def test_an_index_that_was_left_half_built_is_built_anew(empty_database: str) -> None:
    db = Database(empty_database, pool_size=1)
    await migrations.upgrade(db, BEFORE)
    await db.fetch("CREATE INDEX ix_tool_calls_intended ON tool_calls (intended_at)")
    await migrations.upgrade(db)
    assert await migrations.current(db) == migrations.head()
    await db.close()


async def test_taking_governance_back_opens_no_restricted_server(empty_database: str) -> None:
    db = Database(empty_database, pool_size=1)
    await migrations.upgrade(db, "0003")
    await db.fetch(
        """INSERT INTO mcp_server_configs (id, slug, transport, auth_type, availability, enabled,
            access, display_name, description, icon_url, url, oauth2_client_id, oauth2_auth_url,
            oauth2_token_url, oauth2_revocation_url, oauth2_scopes, api_key_header, model_intent,
            allow_in_plan_mode, forward_coder_headers, trust_annotations, tool_timeout_seconds)
        SELECT gen_random_uuid(), access, 'sse', 'none', 'default_off', true,
            access, '', '', '', '', '', '', '', '', '', '', false, false, false, false, 60
        FROM unnest('{groups,everyone}'::text[]) AS access"""
    )
    (before,) = await db.fetch("SELECT version FROM policy_state")
    await migrations.downgrade(db, BEFORE)
    rows = await db.fetch("SELECT slug, enabled FROM mcp_server_configs ORDER BY slug")
    assert [tuple(row) for row in rows] == [("everyone", True), ("groups", False)]
    (after,) = await db.fetch("SELECT version FROM policy_state")
    assert after["version"] > before["version"]
    await db.close()


@pytest.mark.parametrize("first", ["turns", "users", "mcp_server_configs", "connection_log"])
async def test_no_command_of_the_release_that_serves_deadlocks_with_oauth(
    empty_database: str, first: str
) -> None:
    db = Database(empty_database, pool_size=1)
    await migrations.upgrade(db, SERVING)
    async with transaction(empty_database) as holder:
        await holder.execute(f"LOCK TABLE {first} IN ROW EXCLUSIVE MODE")
        migrating = asyncio.create_task(migrations.upgrade(db))
        await until(partial(_trying, db))
        for table in ("connection_log", "policy_state", "mcp_server_configs", "users", "turns"):
            await holder.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE")
        assert not migrating.done()
    await migrating
    assert await migrations.current(db) == migrations.head()
    await db.close()


async def _trying(db: Database) -> bool:
    """Whether the migration asks for its locks."""
    rows = await db.fetch(
        """SELECT 1 FROM pg_stat_activity WHERE application_name = 'chatd migrate'
            AND state = 'active' AND query LIKE '%lock_not_available%'"""
    )
    return bool(rows)


async def test_turns_are_accepted_while_those_there_are_are_looked_at(empty_database: str) -> None:
    db = Database(empty_database, pool_size=1)
    await migrations.upgrade(db, SERVING)
    async with transaction(empty_database) as holder:
        await holder.execute("LOCK TABLE users IN ROW EXCLUSIVE MODE")
        migrating = asyncio.create_task(migrations.upgrade(db))
        await until(partial(_has_column, db))
        async with asyncio.timeout(WITHIN_S):
            await db.fetch("UPDATE turns SET on_auth_required = on_auth_required")
        assert not migrating.done()
    await migrating
    assert await migrations.current(db) == migrations.head()
    await db.close()


async def _has_column(db: Database) -> bool:
    row = await db.fetch_one(
        "SELECT convalidated FROM pg_constraint WHERE conname = 'ck_turns_on_auth_required'"
    )
    return row is not None and bool(row["convalidated"])


async def test_oauth_that_was_left_half_done_is_done_again(empty_database: str) -> None:
    db = Database(empty_database, pool_size=1)
    await migrations.upgrade(db, SERVING)
    await db.fetch("ALTER TABLE turns ADD on_auth_required varchar NOT NULL DEFAULT 'skip'")
    await migrations.upgrade(db)
    assert await migrations.current(db) == migrations.head()
    await migrations.check(db)
    await db.close()


async def test_taking_oauth_back_closes_servers_that_nobody_knows_then(empty_database: str) -> None:
    db = Database(empty_database, pool_size=1)
    await migrations.upgrade(db)
    await db.fetch(
        """INSERT INTO mcp_server_configs (id, slug, transport, auth_type, availability, enabled,
            display_name, description, icon_url, url, oauth2_client_id, oauth2_auth_url,
            oauth2_token_url, oauth2_revocation_url, oauth2_scopes, api_key_header, model_intent,
            allow_in_plan_mode, forward_coder_headers, trust_annotations, tool_timeout_seconds)
        SELECT gen_random_uuid(), auth, 'sse', auth, 'default_off', true,
            '', '', '', '', '', '', '', '', '', '', false, false, false, false, 60
        FROM unnest('{client_credentials,user_oidc}'::text[]) AS auth"""
    )
    (before,) = await db.fetch("SELECT version FROM policy_state")
    await migrations.downgrade(db, SERVING)
    rows = await db.fetch("SELECT slug, auth_type, enabled FROM mcp_server_configs ORDER BY slug")
    assert [tuple(row) for row in rows] == [
        ("client_credentials", "oauth2", False),
        ("user_oidc", "user_oidc", True),
    ]
    (after,) = await db.fetch("SELECT version FROM policy_state")
    assert after["version"] > before["version"]
    await db.close()
