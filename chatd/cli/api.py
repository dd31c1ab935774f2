"""`chatd api`: the front door, one process."""

import asyncio
import logging
import signal
import socket
from contextlib import ExitStack
from types import FrameType
from typing import Annotated, Any, cast

import typer
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from chatd import logs, telemetry
from chatd.api.app import create_app
from chatd.api.flow import HEARTBEAT_S
from chatd.api.parts import Drain
from chatd.processes import check_keys
from chatd.settings import Settings, load
from chatd.store.secrets import KeyRing

GRACE_S = 10
"""For answers that are under way when the listener has closed."""

KEEP_ALIVE_S = 75
"""Longer than a load balancer keeps its connections (60 s is usual), so it closes first."""

MAX_SAID_BYTES = 4096
"""Of a WebSocket client: our sockets go one way."""

_LOCAL = "unix"
"""Who is at the other end of a UNIX socket, which has no address."""


def api(
    host: Annotated[str | None, typer.Option(help="Address; CHATD_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; CHATD_PORT.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port of /metrics, 0 for none; CHATD_METRICS_PORT.")
    ] = None,
    fd: Annotated[
        int | None,
        typer.Option(min=0, help="A socket that listens already, instead of host and port."),
    ] = None,
) -> None:
    """Answer HTTP until SIGTERM."""
    sockets = None if fd is None else [_listening(fd)]
    changed = {"host": host, "port": port, "metrics_port": metrics_port}
    settings = load(Settings)
    settings = settings.model_copy(
        update={name: value for name, value in changed.items() if value is not None}
    )
    logs.configure(settings.log_format, settings.log_level)
    with ExitStack() as stack:
        if settings.metrics_port:
            stack.callback(telemetry.serve_metrics(settings.metrics_host, settings.metrics_port))
        if settings.otel_endpoint:
            stack.callback(telemetry.start_tracing("chatd-api"))
        serve(settings, sockets)


def serve(settings: Settings, sockets: list[socket.socket] | None = None) -> None:
    """Until SIGTERM or SIGINT. Raises `OtherKey` before anything is opened."""
    asyncio.run(check_keys(settings.database_url.get_secret_value(), KeyRing(settings.keys())))
    app = create_app(settings)
    config = server_config(app, settings, sockets)
    server = Server(config, app.state.drain, settings.drain_delay_seconds)
    server.run(sockets)


def _listening(fd: int) -> socket.socket:
    """What another process opened for us: socket activation, as systemd calls it."""
    try:
        return socket.socket(fileno=fd)
    except OSError as error:
        raise typer.BadParameter(f"{fd} is no socket: {error.strerror}.") from None


def server_config(
    app: FastAPI, settings: Settings, sockets: list[socket.socket] | None = None
) -> uvicorn.Config:
    """WebSockets by websockets' own parser: uvicorn's other adapter for it is deprecated."""
    proxies = [str(network) for network in settings.trusted_proxies]
    local = any(each.family == socket.AF_UNIX for each in sockets or [])
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    return uvicorn.Config(
        _behind_local_proxy(app, proxies) if local else app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_ping_interval=HEARTBEAT_S,
        ws_max_size=MAX_SAID_BYTES,
        ws_per_message_deflate=False,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=not local,
        forwarded_allow_ips=proxies,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )


def _behind_local_proxy(app: FastAPI, proxies: list[str]) -> ASGIApp:
    """Whoever may open the socket is believed, as a listed proxy is: what it has seen itself comes
    last in `X-Forwarded-For`. To trust everybody, uvicorn's `*`, is to believe what comes first,
    which the client writes."""
    forwarded: Any = ProxyHeadersMiddleware(cast(Any, app), [*proxies, _LOCAL])

    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and not scope.get("client"):
            scope["client"] = (_LOCAL, 0)
        await forwarded(scope, receive, send)

    return named


def _is_news(record: logging.LogRecord) -> bool:
    """A reader who takes nothing is dropped, and does not take the end of its response either."""
    return record.getMessage() != "ASGI callable returned without completing response."


class Server(uvicorn.Server):
    """At SIGTERM it says so first (`/readyz`, streams) and stops listening after `delay_s`.

    At SIGINT, and at a second signal, there is no delay.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, delay_s: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._delay_s = delay_s
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """uvicorn's own would raise the signal again at the end: an orderly stop is no failure."""
        if self._loop is None:
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self._leave, sig == signal.SIGINT)

    def _leave(self, at_once: bool) -> None:
        assert self._loop is not None
        if self._drain.started:
            self.force_exit = self.should_exit
            self.should_exit = True
        else:
            self._drain.start()
            self._loop.call_later(0 if at_once else self._delay_s, self._stop_listening)

    def _stop_listening(self) -> None:
        self.should_exit = True
