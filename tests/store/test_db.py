"""Which failures mean that PostgreSQL is away, and which that it said no."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncGenerator

import pytest
from sqlalchemy import text

from chatd.core.errors import Unavailable
from chatd.store.db import Database

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


async def test_a_wrong_password_is_not_an_outage(refusing: dict[str, str]) -> None:
    refusing["state"] = "28P01"
    db = Database(refusing["url"], pool_size=1)
    with pytest.raises(Exception, match="no") as refused:
        await db.fetch("SELECT 1")
    assert not isinstance(refused.value, Unavailable)
    await db.close()
