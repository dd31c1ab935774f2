"""Which failures mean that PostgreSQL is away, and which that it said no."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncGenerator

import pytest
from sqlalchemy import text

from chatd.core.errors import Unavailable
from chatd.store.db import Database
from tests.seed import Seed

SSL_REQUEST = struct.pack(">ii", 8, 80877103)


def refusal(state: str, message: str) -> bytes:
    """The protocol's ErrorResponse."""
    fields = f"SFATAL\0VFATAL\0C{state}\0M{message}\0\0".encode()
    return b"E" + struct.pack(">i", len(fields) + 4) + fields


@pytest.fixture
async def refusing() -> AsyncGenerator[dict[str, str]]:
    """A server that lets nobody in, for the reason under `state`."""
    said = {"state": "57P03"}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            if await reader.read(1024) == SSL_REQUEST:
                writer.write(b"N")
                await reader.read(1024)
            writer.write(refusal(said["state"], "no"))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    said["url"] = f"postgresql://chatd:secret@127.0.0.1:{port}/chatd"
    yield said
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    "state",
    [
        pytest.param("57P03", id="starting up"),
        pytest.param("57P01", id="shutting down"),
        pytest.param("53300", id="no connection left"),
    ],
)
async def test_a_server_that_lets_nobody_in_now_is_away(
    refusing: dict[str, str], state: str
) -> None:
    refusing["state"] = state
    db = Database(refusing["url"], pool_size=1)
    with pytest.raises(Unavailable):
        await db.fetch("SELECT 1")
    with pytest.raises(Unavailable):
        async with db.statements() as connection:
            await connection.execute(text("SELECT 1"))
    await db.close()


async def test_what_a_frozen_process_has_locked_is_let_go(
    seed: Seed, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    """It has locked a row and neither goes on nor closes its connection."""
    monkeypatch.setattr("chatd.store.db.IDLE_IN_TRANSACTION_MS", 100)
    frozen = Database(database_url, pool_size=1)

    async def freeze() -> None:
        async with frozen.statements() as connection:
            await connection.execute(text("SELECT 1 FROM policy_state FOR UPDATE"))
            assert await seed.db.fetch("SELECT 1 FROM policy_state FOR UPDATE")
            await connection.execute(text("SELECT 1"))

    with pytest.raises(Unavailable):
        await freeze()
    assert await frozen.fetch("SELECT 1")
    await frozen.close()


async def test_who_is_unhurried_may_be_idle(db: Database) -> None:
    unhurried = db.unhurried()
    for database, waits in ((db, "5s"), (unhurried, "0")):
        row = await database.fetch_one("SHOW idle_in_transaction_session_timeout")
        assert row is not None
        assert row["idle_in_transaction_session_timeout"] == waits
    await unhurried.close()


async def test_a_wrong_password_is_not_an_outage(refusing: dict[str, str]) -> None:
    refusing["state"] = "28P01"
    db = Database(refusing["url"], pool_size=1)
    with pytest.raises(Exception, match="no") as refused:
        await db.fetch("SELECT 1")
    assert not isinstance(refused.value, Unavailable)
    await db.close()
