"""The front door on a real socket, served as `chatd api` does, in the test's own loop."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
import uvicorn
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from chatd.cli.api import server_config
from chatd.settings import Settings
from tests.api.conftest import BASE, Person


@asynccontextmanager
async def serving(app: FastAPI, settings: Settings) -> AsyncGenerator[str]:
    """Answers host and port. The application's parts are the test's to open and close."""
    config = server_config(app, settings.model_copy(update={"port": 0}))
    async with running(config) as server:
        yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


@asynccontextmanager
async def running(
    config: uvicorn.Config, sockets: list[socket.socket] | None = None
) -> AsyncGenerator[uvicorn.Server]:
    config.lifespan = "off"
    config.loop = "none"
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets)
    ticking = asyncio.create_task(server.main_loop())
    try:
        yield server
    finally:
        server.should_exit = True
        await ticking
        await server.shutdown(sockets)


def open_socket(address: str, path: str, person: Person, **headers: str) -> Any:
    """A WebSocket of this person's, to be entered."""
    sent = {"Authorization": f"Bearer {person.token}", **headers}
    return connect(
        f"ws://{address}{BASE}{path}", additional_headers=sent, user_agent_header=None, proxy=None
    )


async def heard(stream: ClientConnection, name: str) -> Any:
    """The next event of this name; those before it are passed over."""
    async with asyncio.timeout(20):
        while True:
            event = orjson.loads(await stream.recv())
            if event["event"] == name:
                return event


async def closing_code(stream: ClientConnection) -> int:
    """How the server closes it, after whatever it still says."""
    async with asyncio.timeout(20):
        with suppress(ConnectionClosed):
            while True:
                await stream.recv()
    assert stream.close_code is not None
    return stream.close_code
