"""What every test may ask for: real services, started once, and a database of its own."""

import asyncio
import gc
import shutil
import tempfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from chatd import memory
from chatd.dev.postgres import Postgres
from chatd.dev.served import Served
from chatd.dev.stack import start_demo_mcp, start_model
from chatd.dev.valkey import Valkey
from chatd.store import migrations
from chatd.store.db import Database
from tests.databases import Databases
from tests.seed import Seed, make_seed

_MEMORY = Path("/dev/shm")
_ROOM = 2 << 30


# Else the collector goes through all modules again and again while they are imported.
gc.set_threshold(100_000, 20, 20)


def pytest_collection_finish() -> None:
    """The pace of a process that serves: as a worker's and a front door's."""
    memory.settle()


@pytest.fixture(scope="session")
def fast_folder() -> Path:
    """Where to make folders for services: in memory, if there is room, a database costs 6 ms."""
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM:
        return _MEMORY
    return Path(tempfile.gettempdir())


@pytest.fixture(scope="session")
def services_folder(fast_folder: Path) -> Generator[Path]:
    """Not pytest's own: that one is closed to the user PostgreSQL runs as when we are root."""
    folder = Path(tempfile.mkdtemp(prefix="chatd-tests-", dir=fast_folder))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres(services_folder: Path) -> Generator[Postgres]:
    """One server per session, so each xdist worker has its own. Who kills it restarts it."""
    server = asyncio.run(Postgres.start(services_folder / "postgres", durable=False))
    yield server
    asyncio.run(server.stop())


@pytest.fixture(scope="session")
def valkey(services_folder: Path) -> Generator[Valkey]:
    """One server per session, shared by its tests: whoever needs it empty flushes it."""
    server = asyncio.run(Valkey.start(services_folder / "valkey", durable=False))
    yield server
    asyncio.run(server.stop())


@pytest.fixture(scope="session")
def databases(postgres: Postgres) -> Databases:
    return Databases(postgres)


@pytest.fixture
async def empty_database(databases: Databases) -> AsyncGenerator[str]:
    """The URL of a database without tables, of this test's own."""
    async with databases.copied("template1") as url:
        yield url


@pytest.fixture(scope="session")
def migrated_database(postgres: Postgres) -> str:
    """The name of a database with every table and no rows: what the tests' own are copied from."""

    async def migrate() -> None:
        db = Database(await postgres.create_database("migrated"), pool_size=1)
        await migrations.upgrade(db)
        await db.close()

    asyncio.run(migrate())
    return "migrated"


@pytest.fixture
async def database_url(databases: Databases, migrated_database: str) -> AsyncGenerator[str]:
    """The URL of a migrated database of this test's own."""
    async with databases.copied(migrated_database) as url:
        yield url


@pytest.fixture
async def db(database_url: str) -> AsyncGenerator[Database]:
    db = Database(database_url, pool_size=4)
    yield db
    await db.close()


@pytest.fixture
async def seed(db: Database) -> Seed:
    """A user with a default model that nobody serves."""
    return await make_seed(db)


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncGenerator[Redis]:
    """A client of the session's Valkey, which is empty."""
    if not valkey.running:
        await valkey.restart()
    client = Redis.from_url(valkey.url)
    await client.execute_command("FLUSHALL")
    yield client
    await client.aclose()


@pytest.fixture(scope="session")
def scripted_model(services_folder: Path) -> Generator[Served]:
    """Its `url` is a base URL for OpenAI clients."""
    served = asyncio.run(start_model(services_folder / "scripted-model"))
    yield served
    asyncio.run(served.stop())


@pytest.fixture(scope="session")
def demo_server(services_folder: Path) -> Generator[Served]:
    """The demo MCP server."""
    served = asyncio.run(start_demo_mcp(services_folder / "demo-server"))
    yield served
    asyncio.run(served.stop())
