"""The front door, wired: settings in, one ASGI application out."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

from fastapi import FastAPI
from redis.asyncio import Redis
from starlette.middleware.cors import CORSMiddleware

from chatd import memory, telemetry
from chatd.answering import Answers
from chatd.api import errors, files, openapi, routes, servers
from chatd.api.errors import Failures
from chatd.api.icon_cache import Icons
from chatd.api.limits import Limits
from chatd.api.parts import Drain, Parts
from chatd.api.permits import Permits
from chatd.api.rates import Rates
from chatd.api.requests import Requests
from chatd.api.session_cookie import CSRF_HEADER, SessionCookies, origin_of
from chatd.api.stream import Streams
from chatd.catalogue import Catalogue, Pinning
from chatd.commands import Commands
from chatd.connecting import OAuth, oauth
from chatd.connections import ConnectionLog
from chatd.core.release import VERSION
from chatd.credentials import Credentials, TokenService
from chatd.mcp.pool import SessionPool
from chatd.outbound import Outbound
from chatd.people import People
from chatd.processes import Heartbeat, new_process_id
from chatd.queue import PolicyMoves, Stops, Wakes
from chatd.retitling import Retitling
from chatd.revoking import Approvals, PolicyWatch
from chatd.settings import Settings
from chatd.signing_in import SigningIn
from chatd.store.db import Database
from chatd.store.following import read_versions
from chatd.store.loading import TurnLoader
from chatd.store.secrets import KeyRing
from chatd.store.spending import SpendLimits
from chatd.store.watching import WatchReads
from chatd.stream.hub import Hub
from chatd.stream.publisher import Publisher
from chatd.stream.watchers import Watchers
from chatd.title_queue import TitleQueue

PREFIX = "/api/experimental"
REDIS_TIMEOUT_S = 2.0

_CORS_HEADERS = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "Last-Event-ID",
    "Traceparent",
    "X-Request-Id",
    CSRF_HEADER,
)


def create_app(settings: Settings) -> FastAPI:
    """Nothing is opened before the application starts."""
    app = FastAPI(
        title="chatd",
        version=VERSION,
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        lifespan=lambda app: _lifespan(app, settings),
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
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
    routes.add(app, PREFIX)
    _add_middleware(app, settings)
    return app


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """The last one added is the outermost. None is a `BaseHTTPMiddleware`: they cost a stream."""
    larger = {PREFIX + files.PATH: max(files.MAX_BODY_BYTES, settings.max_body_bytes)}
    for path in (servers.PATH, servers.PATH + "/"):
        larger[PREFIX + path] = max(servers.MAX_BODY_BYTES, settings.max_body_bytes)
    app.add_middleware(SessionCookies)
    app.add_middleware(Limits, max_body_bytes=settings.max_body_bytes, larger=larger)
    app.add_middleware(Failures)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_credentials=True,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=_CORS_HEADERS,
            expose_headers=["ETag", "Retry-After", "X-Request-Id"],
            max_age=600,
        )
    app.add_middleware(Requests)


@asynccontextmanager
async def _lifespan(app: FastAPI, settings: Settings) -> AsyncGenerator[None]:
    """Open in order, close in the other."""
    async with AsyncExitStack() as stack:
        process = new_process_id()
        app.state.parts = parts = await _open(stack, settings, app.state.drain, process)
        heartbeat = Heartbeat(parts.db, parts.keys, "api", process)
        parts.drain.at_start((await stack.enter_async_context(heartbeat)).goodbye)
        memory.settle()
        yield


async def _open(stack: AsyncExitStack, settings: Settings, drain: Drain, process: str) -> Parts:
    db = Database(settings.database_url.get_secret_value(), application="chatd api")
    stack.push_async_callback(db.close)
    redis = _redis(stack, settings)
    sessions, catalogue = _catalogue(stack, settings, db, redis, process)
    wakes, publisher, stops = Wakes(redis), Publisher(redis), Stops(redis)
    for sender in (wakes, publisher, stops):
        sender.start()
        stack.push_async_callback(sender.close)
    hub, watchers, permits = _follow(stack, db, redis, drain)
    limits = SpendLimits(db)
    parts = Parts(
        db=db,
        redis=redis,
        keys=KeyRing(settings.keys()),
        answers=Answers(db, wakes, publisher),
        commands=Commands(db, wakes, publisher, stops, limits, traceparent=telemetry.traceparent),
        titles=Retitling(db, wakes, TitleQueue(redis), limits),
        limits=limits,
        streams=Streams(db, hub, wake=wakes.wake),
        watchers=watchers,
        permits=permits,
        people=People(db, redis, wakes, publisher, stops),
        catalogue=catalogue,
        sessions=sessions,
        icons=_icons(stack, settings),
        drain=drain,
        wakes=wakes,
        rates=Rates(redis),
        oauth=_oauth(stack, settings, db),
        signing_in=_signing_in(stack, settings, db),
        origins=frozenset((*settings.cors_origins, origin_of(settings.access_url))),
    )
    approvals = Approvals(db, TurnLoader(db, parts.keys), wakes, publisher)
    watch = PolicyWatch(db, approvals, (sessions, catalogue))
    _watch_policy(stack, parts, watch, PolicyMoves(redis))
    return parts


def _redis(stack: AsyncExitStack, settings: Settings) -> Redis:
    redis = Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_connect_timeout=REDIS_TIMEOUT_S,
        socket_keepalive=True,
    )
    stack.push_async_callback(cast(Any, redis).aclose)
    return redis


def _follow(
    stack: AsyncExitStack, db: Database, redis: Redis, drain: Drain
) -> tuple[Hub, Watchers, Permits]:
    hub = Hub(redis, lambda ids: read_versions(db, ids))
    watchers = Watchers(hub.listener, WatchReads(db))
    permits = Permits(db, hub.listener)
    for follower in (hub, watchers, permits):
        follower.start()
        stack.push_async_callback(follower.close)
    drain.at_start(hub.drain)
    drain.at_start(watchers.drain)
    telemetry.FOLLOWERS.set_function(lambda: hub.followers + watchers.count)
    telemetry.STREAM_BUFFER_BYTES.set_function(lambda: hub.waiting_bytes + watchers.waiting_bytes)
    return hub, watchers, permits


def _catalogue(
    stack: AsyncExitStack, settings: Settings, db: Database, redis: Redis, process: str
) -> tuple[SessionPool, Catalogue]:
    outbound = Outbound(settings.model_allowed_cidrs, settings.mcp_allowed_cidrs)
    stack.push_async_callback(outbound.aclose)
    connections = ConnectionLog(db, process)
    connections.start()
    stack.push_async_callback(connections.close)
    tokens = TokenService(db, KeyRing(settings.keys()), outbound, login=settings.login_client())
    stack.push_async_callback(tokens.close)
    sessions = SessionPool(
        lambda auth: outbound.mcp_client(auth=auth), Credentials(tokens), tell=connections.add
    )
    stack.push_async_callback(sessions.aclose)
    catalogue = Catalogue(redis, sessions, Pinning(db))
    stack.push_async_callback(catalogue.aclose)
    return sessions, catalogue


def _watch_policy(
    stack: AsyncExitStack, parts: Parts, watch: PolicyWatch, moves: PolicyMoves
) -> None:
    """Whoever has committed a change tells everybody, this process first."""

    def moved() -> None:
        watch.moved()
        moves.push()

    parts.db.on_policy = moved
    moves.start()
    stack.push_async_callback(moves.close)
    for running in (watch.run(), watch.listen(parts.redis).run()):
        stack.push_async_callback(_cancelled, asyncio.create_task(running))


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


def _oauth(stack: AsyncExitStack, settings: Settings, db: Database) -> OAuth:
    outbound = Outbound(mcp_allowed=settings.mcp_allowed_cidrs)
    stack.push_async_callback(outbound.aclose)
    return oauth(db, KeyRing(settings.keys()), outbound, settings.access_url)


def _signing_in(stack: AsyncExitStack, settings: Settings, db: Database) -> SigningIn:
    outbound = Outbound(mcp_allowed=settings.mcp_allowed_cidrs)
    stack.push_async_callback(outbound.aclose)
    keys = KeyRing(settings.keys())
    return SigningIn(db, keys, outbound, settings.access_url, settings.login())


def _icons(stack: AsyncExitStack, settings: Settings) -> Icons:
    outbound = Outbound(mcp_allowed=settings.mcp_allowed_cidrs)
    stack.push_async_callback(outbound.aclose)
    icons = Icons(outbound)
    stack.push_async_callback(icons.aclose)
    return icons
