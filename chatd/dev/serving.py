"""The child's side of a demo server: serve on loopback, and say where on standard output."""

import socket
import sys
from typing import Literal

import orjson
import uvicorn
from starlette.types import ASGIApp

from chatd.dev.ports import listen


class _Server(uvicorn.Server):
    """Says it is ready only when it is: whoever reads the line may connect at once."""

    def __init__(self, config: uvicorn.Config, ready: bytes) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        sys.stdout.buffer.write(self._ready)
        sys.stdout.buffer.flush()


def serve(
    app: ASGIApp,
    *,
    port: int,
    path: str,
    log_level: str = "warning",
    lifespan: Literal["on", "off"] = "on",
) -> None:
    """Serve until SIGTERM or SIGINT. Port 0 picks one; the first line has `url` and `port`."""
    config = uvicorn.Config(
        app,
        log_level=log_level,
        access_log=False,
        ws="none",
        lifespan=lifespan,
        server_header=False,
        # A client that follows a stream must not keep us alive.
        timeout_graceful_shutdown=1,
    )
    with listen(port) as bound:
        port = bound.getsockname()[1]
        ready = orjson.dumps({"url": f"http://127.0.0.1:{port}{path}", "port": port}) + b"\n"
        _Server(config, ready).run(sockets=[bound])
