"""The front door, wired: settings in, one ASGI application out."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast
from urllib.parse import urlsplit

from fastapi import FastAPI
from redis.asyncio import Redis
from starlette.middleware.cors import CORSMiddleware

from chatd import memory, telemetry
from chatd.answering import Answers
from chatd.api import (
    chats,
    config,
    creating,
    errors,
    files,
    health,
    history,
    items,
    models,
    openapi,
    queue,
    servers,
    titles,
    tools,
    turns,
    usage,
    watch,
    websocket,
)
from chatd.api.answers import REFUSALS
from chatd.api.errors import Failures
from chatd.api.limits import Limits
from chatd.api.parts import Drain, Parts
from chatd.api.requests import Requests
from chatd.api.stream import Streams
from chatd.catalogue import Catalogue
from chatd.commands import Commands
from chatd.credentials import Credentials
from chatd.mcp.pool import SessionPool
from chatd.outbound import Outbound
from chatd.queue import Stops, Wakes
from chatd.retitling import Retitling
from chatd.settings import Settings
from chatd.store.db import Database
from chatd.store.following import read_versions
from chatd.store.secrets import KeyRing
from chatd.store.spending import SpendLimits
from chatd.store.watching import WatchReads
from chatd.stream.hub import Hub
from chatd.stream.publisher import Publisher
from chatd.stream.watchers import Watchers
from chatd.title_queue import TitleQueue

PREFIX = "/api/experimental"
VERSION = "0.1.0"
REDIS_TIMEOUT_S = 2.0

_CORS_HEADERS = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "Traceparent",
    "X-Request-Id",
)

_TAGS = [
    {"name": "chats", "description": "Conversations and their event streams."},
    {"name": "turns", "description": "Messages and what became of them."},
    {"name": "models", "description": "Models to choose from; providers and configs for admins."},
    {"name": "mcp servers", "description": "Where tools come from."},
    {"name": "config", "description": "Settings of the deployment, and everybody's own."},
    {"name": "files", "description": "Bytes that messages name by id."},
    {"name": "usage", "description": "What model calls cost, and what users may spend."},
    {"name": "health", "description": "For load balancers."},
]


def create_app(settings: Settings) -> FastAPI:
    """Nothing is opened before the application starts."""
    app = FastAPI(
        title="chatd",
        version=VERSION,
        description=openapi.DESCRIPTION,
        openapi_tags=_TAGS,
        lifespan=lambda app: _lifespan(app, settings),
        redirect_slashes=False,
        telemetry={
            "tracing": telemetry.tracer_provider() is not None,
            "tracer_provider": telemetry.tracer_provider(),
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    app.state.drain = Drain()
    errors.install(app)
    openapi.install(app)
    _add_routes(app)
    _add_middleware(app, settings)
    return app


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """The last one added is the outermost. None is a `BaseHTTPMiddleware`: they cost a stream."""
    larger = {PREFIX + files.PATH: max(files.MAX_BODY_BYTES, settings.max_body_bytes)}
    app.add_middleware(Limits, max_body_bytes=settings.max_body_bytes, larger=larger)
    app.add_middleware(Failures)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=_CORS_HEADERS,
            expose_headers=["X-Request-Id", "Retry-After"],
            max_age=600,
        )
    app.add_middleware(Requests)


def _add_routes(app: FastAPI) -> None:
    # What is asked for most comes first, and fixed paths such as /chats/models before
    # /chats/{chat}.
    for part in (
        creating,
        turns,
        queue,
        history,
        items,
        tools,
        models,
        files,
        config,
        watch,
        chats,
        titles,
        servers,
        usage,
    ):
        app.include_router(part.router, prefix=PREFIX, responses=REFUSALS)
    app.include_router(websocket.router, prefix=PREFIX)
    app.include_router(health.router)


@asynccontextmanager
async def _lifespan(app: FastAPI, settings: Settings) -> AsyncGenerator[None]:
    """Open in order, close in the other."""
    async with AsyncExitStack() as stack:
        app.state.parts = await _open(stack, settings, app.state.drain)
        memory.settle()
        yield


async def _open(stack: AsyncExitStack, settings: Settings, drain: Drain) -> Parts:
    db = Database(settings.database_url.get_secret_value(), application="chatd api")
    stack.push_async_callback(db.close)
    redis = Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_connect_timeout=REDIS_TIMEOUT_S,
        socket_keepalive=True,
    )
    stack.push_async_callback(cast(Any, redis).aclose)
    catalogue = _catalogue(stack, settings, redis)
    wakes, publisher, stops = Wakes(redis), Publisher(redis), Stops(redis)
    for sender in (wakes, publisher, stops):
        sender.start()
        stack.push_async_callback(sender.close)
    hub = Hub(redis, lambda ids: read_versions(db, ids))
    hub.start()
    stack.push_async_callback(hub.close)
    watchers = Watchers(hub.listener, WatchReads(db))
    watchers.start()
    stack.push_async_callback(watchers.close)
    drain.at_start(hub.drain)
    drain.at_start(watchers.drain)
    telemetry.FOLLOWERS.set_function(lambda: hub.followers + watchers.count)
    telemetry.STREAM_BUFFER_BYTES.set_function(lambda: hub.waiting_bytes + watchers.waiting_bytes)
    limits = SpendLimits(db)
    return Parts(
        db=db,
        redis=redis,
        keys=KeyRing(settings.keys()),
        answers=Answers(db, wakes, publisher),
        commands=Commands(db, wakes, publisher, stops, limits, traceparent=telemetry.traceparent),
        titles=Retitling(db, wakes, TitleQueue(redis), limits),
        limits=limits,
        streams=Streams(db, hub, wake=wakes.wake),
        watchers=watchers,
        catalogue=catalogue,
        drain=drain,
        origins=frozenset((*settings.cors_origins, _origin(settings.access_url))),
    )


def _catalogue(stack: AsyncExitStack, settings: Settings, redis: Redis) -> Catalogue:
    outbound = Outbound(settings.model_allowed_cidrs, settings.mcp_allowed_cidrs)
    stack.push_async_callback(outbound.aclose)
    sessions = SessionPool(lambda auth: outbound.mcp_client(auth=auth), Credentials())
    stack.push_async_callback(sessions.aclose)
    catalogue = Catalogue(redis, sessions)
    stack.push_async_callback(catalogue.aclose)
    return catalogue


def _origin(url: str) -> str:
    """As a browser names the pages of this URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
