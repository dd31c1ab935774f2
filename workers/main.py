"""The worker process: wiring, the wake listener, arq under a supervisor, drain on SIGTERM."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from arq import Worker, func
from arq.connections import RedisSettings
from redis.asyncio import Redis
from redis.exceptions import RedisError

from chatd import logs, memory
from chatd.catalogue import Catalogue, Pinning
from chatd.connections import ConnectionLog
from chatd.credentials import Credentials, Keeper, TokenService
from chatd.llm.clients import ModelClients
from chatd.mcp.pool import SessionPool
from chatd.outbound import Outbound
from chatd.processes import Heartbeat, Load, check_keys, new_process_id
from chatd.queue import QUEUE, Hints, PolicyMoves, Stops, Wakes, from_bytes, to_bytes
from chatd.revoking import Approvals, PolicyWatch
from chatd.settings import Settings
from chatd.store.db import Database
from chatd.store.loading import TurnLoader
from chatd.store.secrets import KeyRing
from chatd.stream.publisher import Publisher
from chatd.title_queue import TitleQueue
from chatd.titles import Titles
from chatd.turn.deps import TurnDeps
from workers.jobs import CRON, JobDeps, wake
from workers.runner import IDLE_CLAIM_S, Runner
from workers.stops import StopListener
from workers.sweep import Sweeper

HINT_WAIT_S = 5
RESTART_S = 0.5

AWAY = (RedisError, OSError, TimeoutError)

log = logs.get("worker")


@dataclass(frozen=True, slots=True)
class Process:
    """Everything a worker process has."""

    settings: Settings
    redis: Redis
    deps: TurnDeps
    titles: Titles
    runner: Runner
    sweeper: Sweeper
    policy: PolicyWatch
    heartbeat: Heartbeat
    keeper: Keeper


@asynccontextmanager
async def process(settings: Settings) -> AsyncGenerator[Process]:
    """Open everything in order; close it in the other."""
    url = settings.database_url.get_secret_value()
    worker_id = new_process_id()
    db = Database(url, application="chatd worker")
    renewals = Database(url, pool_size=1, application="chatd worker leases")
    redis = Redis.from_url(
        settings.redis_url.get_secret_value(), socket_connect_timeout=2, socket_keepalive=True
    )
    outbound = Outbound(settings.model_allowed_cidrs, settings.mcp_allowed_cidrs)
    connections = ConnectionLog(db, worker_id)
    keys = KeyRing(settings.keys())
    tokens = TokenService(db, keys, outbound, login=settings.login_client())
    deps, titles = _named(settings, _deps(db, keys, redis, outbound, tokens, connections))
    runner = _runner(settings, deps, renewals, worker_id)
    sweeper, policy = _watchers(deps, runner)
    moves = _policy_moves(db, redis, policy)
    logs.bind(worker=worker_id)
    for part in (deps.publisher, deps.wakes, deps.stops, moves, connections, runner):
        part.start()
    try:
        keeper = Keeper(db, tokens, days=settings.oauth_keep_alive_days)
        load = partial(_load, settings.worker_capacity, runner)
        async with Heartbeat(db, keys, "worker", worker_id, load=load) as heartbeat:
            yield Process(settings, redis, deps, titles, runner, sweeper, policy, heartbeat, keeper)
    finally:
        await runner.close()
        for close in (
            titles.close,
            deps.catalogue.aclose,
            deps.sessions.aclose,
            tokens.close,
            connections.close,
            *(part.close for part in (deps.publisher, deps.wakes, deps.stops, moves)),
            outbound.aclose,
            redis.aclose,
            renewals.close,
            db.close,
        ):
            await cast(Callable[[], Awaitable[None]], close)()


def _load(capacity: int, runner: Runner) -> Load:
    return Load(capacity, runner.busy)


def _deps(
    db: Database,
    keys: KeyRing,
    redis: Redis,
    outbound: Outbound,
    tokens: TokenService,
    connections: ConnectionLog,
) -> TurnDeps:
    sessions = SessionPool(
        lambda auth: outbound.mcp_client(auth=auth), Credentials(tokens), tell=connections.add
    )
    return TurnDeps(
        db=db,
        loader=TurnLoader(db, keys),
        publisher=Publisher(redis),
        wakes=Wakes(redis),
        stops=Stops(redis),
        catalogue=Catalogue(redis, sessions, Pinning(db)),
        sessions=sessions,
        models=ModelClients(outbound.model_client()),
    )


def _runner(settings: Settings, deps: TurnDeps, renewals: Database, worker_id: str) -> Runner:
    return Runner(
        deps,
        renewals,
        worker_id=worker_id,
        capacity=settings.worker_capacity,
        per_owner=settings.max_running_per_owner,
    )


def _watchers(deps: TurnDeps, runner: Runner) -> tuple[Sweeper, PolicyWatch]:
    """What sees to it that crashes are mended and changes of policy applied."""
    db, wakes, publisher = deps.db, deps.wakes, deps.publisher
    approvals = Approvals(db, deps.loader, wakes, publisher)
    policy = PolicyWatch(db, approvals, (deps.sessions, deps.catalogue), runner.told)
    sweeper = Sweeper(
        db,
        wakes,
        publisher,
        free=lambda: runner.free,
        wake=runner.wake,
        approvals=approvals,
    )
    return sweeper, policy


def _policy_moves(db: Database, redis: Redis, policy: PolicyWatch) -> PolicyMoves:
    """A fresh tool list may move policy too: everybody is told, this process first."""
    moves = PolicyMoves(redis)

    def moved() -> None:
        policy.moved()
        moves.push()

    db.on_policy = moved
    return moves


def _named(settings: Settings, deps: TurnDeps) -> tuple[TurnDeps, Titles]:
    """The titles' service; without automatic titles the turns know nothing of it."""
    keys = KeyRing(settings.keys())
    titles = Titles(deps.db, keys, deps.models, deps.publisher, deps.wakes)
    return replace(deps, titles=titles if settings.auto_titles else None), titles


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then drain: what cannot end in the grace time is handed back.

    Raises `OtherKey` before anything is opened.
    """
    await check_keys(settings.database_url.get_secret_value(), KeyRing(settings.keys()))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    async with process(settings) as worker:
        tasks = [
            asyncio.create_task(_listen(worker), name="listen"),
            asyncio.create_task(StopListener(worker.redis, worker.runner.look).run(), name="stops"),
            asyncio.create_task(worker.titles.serve(TitleQueue(worker.redis)), name="titles"),
            asyncio.create_task(worker.sweeper.run(), name="sweep"),
            asyncio.create_task(worker.policy.run(), name="policy"),
            asyncio.create_task(worker.keeper.run(), name="idle logins"),
            asyncio.create_task(worker.policy.listen(worker.redis).run(), name="policy pushes"),
            asyncio.create_task(_supervise(partial(_arq, worker)), name="arq"),
        ]
        memory.settle()
        worker.runner.wake()
        log.info("worker ready", capacity=settings.worker_capacity)
        await stop.wait()
        worker.heartbeat.goodbye()
        for task in tasks[:2]:
            task.cancel()
        await worker.runner.drain(settings.drain_grace_seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    log.info("worker stopped")


async def _listen(worker: Process) -> None:
    """Wait for hints while there is room; while Redis is away, claim unasked."""
    hints = Hints(worker.redis)
    while True:
        await worker.runner.room()
        try:
            async with asyncio.timeout(HINT_WAIT_S + 1):
                taken = await hints.take(HINT_WAIT_S)
            if taken:
                worker.runner.wake()
        except AWAY:
            worker.runner.wake()
            await asyncio.sleep(IDLE_CLAIM_S)


class _Poller(Worker):
    """arq's own slow poll. A full worker picks nothing."""

    def __init__(self, free: Callable[[], int], **options: Any) -> None:
        super().__init__(**options)
        self._free = free

    async def _poll_iteration(self) -> None:
        self.allow_pick_jobs = self._free() > 0
        await super()._poll_iteration()


async def _arq(worker: Process) -> None:
    poller = _Poller(
        lambda: worker.runner.free,
        functions=[func(wake, name="wake", timeout=10, max_tries=1)],
        cron_jobs=CRON,
        queue_name=QUEUE,
        redis_settings=RedisSettings.from_dsn(worker.settings.redis_url.get_secret_value()),
        handle_signals=False,
        keep_result=0,
        job_serializer=to_bytes,
        job_deserializer=from_bytes,
        log_results=False,
        ctx={"deps": JobDeps(worker.deps.db, worker.deps.publisher, worker.runner.wake)},
    )
    try:
        await poller.async_run()
    finally:
        with contextlib.suppress(Exception):  # it would hide that we are being cancelled
            await poller.close()


async def _supervise(run: Callable[[], Awaitable[None]]) -> None:
    """arq ends with the first Redis error: start it again."""
    while True:
        try:
            await run()
        except AWAY:
            pass
        except Exception as error:
            log.exception("arq ended", error=type(error).__name__)
        await asyncio.sleep(RESTART_S)
