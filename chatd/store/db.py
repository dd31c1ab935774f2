"""The engine, one transaction as one `async with`, and the hot statements' way past the ORM."""

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import asyncpg
import orjson
from sqlalchemy import event
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError, DisconnectionError, TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.core.errors import Unavailable

POOL_SIZE = 8
"""Connections a process. More only adds contention: PostgreSQL is never the bottleneck."""

POOL_TIMEOUT_S = 10
CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_MS = 30_000
IDLE_IN_TRANSACTION_MS = 5_000
"""Then PostgreSQL ends the transaction: what a frozen process has locked holds up nobody longer."""

Session = AsyncSession
"""One transaction, for those that only hand it on."""

RETRY = {"Retry-After": "2"}

POLICY_MOVED = "policy_moved"
"""Noted in `session.info`: this transaction changes what policy reads."""

AWAY = (
    OSError,
    TimeoutError,
    PoolTimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # A connection that was told "shutting down" while idle, and is not closed yet.
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
"""What is raised while PostgreSQL is away, restarting, or out of connections."""


def away(error: BaseException) -> bool:
    """Whether the error means that PostgreSQL cannot be reached now (not that it said no)."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or (error.orig is not None and away(error.orig))
    if isinstance(error, AsyncAdapt_asyncpg_dbapi.Error):
        # What a pool raises that cannot connect: asyncpg's own error is behind it.
        return error.__cause__ is not None and away(error.__cause__)
    if isinstance(error, asyncpg.QueryCanceledError):
        return False  # the statement timeout: PostgreSQL is there, and said no
    return isinstance(error, AWAY)


def held_up(error: Exception) -> bool:
    """Whether a lock was not to be had within the transaction's `lock_timeout`."""
    said = error.orig if isinstance(error, DBAPIError) else error
    return getattr(said, "sqlstate", None) == asyncpg.LockNotAvailableError.sqlstate


def _nobody() -> None: ...


def dump(value: Any) -> str:
    """JSON text for a jsonb argument of a hot statement."""
    return orjson.dumps(value).decode()


@contextmanager
def _unavailable() -> Generator[None]:
    try:
        yield
    except Exception as error:
        if away(error):
            raise Unavailable("The database is away.", headers=RETRY) from error
        if held_up(error):
            raise Unavailable("Another change is under way.", headers=RETRY) from error
        raise


def _refuse_closed(dbapi_connection: Any, *_: object) -> None:
    """The pool then dials anew: a restarted PostgreSQL costs nobody a failed statement."""
    if dbapi_connection.driver_connection.is_closed():
        raise DisconnectionError


class Database:
    """One engine and its pool. `durable_writes` stay PostgreSQL's default: on."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = POOL_SIZE,
        application: str = "chatd",
        statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
    ) -> None:
        """`statement_timeout_ms` 0: statements and transactions take as long as they take."""
        limited = statement_timeout_ms > 0
        self.engine: AsyncEngine = create_async_engine(
            url.replace("postgresql://", "postgresql+asyncpg://", 1),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT_S,
            pool_use_lifo=True,
            hide_parameters=True,
            json_serializer=dump,
            json_deserializer=orjson.loads,
            connect_args={
                "timeout": CONNECT_TIMEOUT_S,
                "command_timeout": statement_timeout_ms / 1000 + CONNECT_TIMEOUT_S
                if limited
                else None,
                "server_settings": {
                    "application_name": application,
                    "statement_timeout": str(statement_timeout_ms),
                    "idle_in_transaction_session_timeout": str(
                        IDLE_IN_TRANSACTION_MS if limited else 0
                    ),
                    "jit": "off",
                    "timezone": "UTC",
                },
            },
        )
        event.listen(self.engine.sync_engine, "checkout", _refuse_closed)
        self.on_policy: Callable[[], None] = _nobody
        """Called after the commit of every transaction that has moved policy."""

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncSession]:
        """One block, one transaction. Raises `Unavailable` when PostgreSQL cannot be reached, or
        somebody else keeps a lock for too long."""
        with _unavailable():
            async with (
                AsyncSession(self.engine, expire_on_commit=False) as session,
                session.begin(),
            ):
                yield session
        if POLICY_MOVED in session.info:
            self.on_policy()

    @asynccontextmanager
    async def statements(self) -> AsyncGenerator[AsyncConnection]:
        """The same for plain SQL: one block, one transaction, no ORM."""
        with _unavailable():
            async with self.engine.begin() as connection:
                yield connection

    async def fetch(self, sql: str, *args: object) -> Sequence[asyncpg.Record]:
        """Run one hot statement: its own transaction, prepared once per connection.

        SQLAlchemy's share of such a call costs more than the call (measured), so this borrows
        the pool's asyncpg connection. Raises `Unavailable` when PostgreSQL cannot be reached.
        """
        with _unavailable():
            pooled = await self.engine.raw_connection()
        try:
            connection = cast("asyncpg.Connection[asyncpg.Record]", pooled.driver_connection)
            return await connection.fetch(sql, *args)
        except BaseException as error:
            # A cancelled or broken call leaves the connection in an unknown state: drop it.
            if not isinstance(error, asyncpg.PostgresError) or away(error):
                pooled.invalidate()
            if away(error):
                raise Unavailable("The database is away.", headers=RETRY) from error
            raise
        finally:
            pooled.close()

    async def fetch_one(self, sql: str, *args: object) -> asyncpg.Record | None:
        rows = await self.fetch(sql, *args)
        return rows[0] if rows else None

    def unhurried(self) -> "Database":
        """One connection to the same database, which waits for anything."""
        url = self.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        return Database(url, pool_size=1, application="chatd migrate", statement_timeout_ms=0)

    async def close(self) -> None:
        await self.engine.dispose()


async def fetch_within(
    connection: AsyncConnection, sql: str, *args: object
) -> Sequence[asyncpg.Record]:
    """Run one hot statement inside a transaction in which something was executed already."""
    pooled = await connection.get_raw_connection()
    driver = cast("asyncpg.Connection[asyncpg.Record]", pooled.driver_connection)
    return await driver.fetch(sql, *args)


def load(value: Any) -> Any:
    """A jsonb result of a hot statement: text or parsed, depending on the connection's codec."""
    return orjson.loads(value) if isinstance(value, str | bytes) else value
