"""Our own cells: what the peers' harness cannot ask of a system that keeps chats and queues."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any

import psutil

from bench import seeding
from bench.asking import API, PART, Ask, Sample, ask_model, quantile, repeat, show
from bench.system import System, busy_s, own_s, running

FOLLOWERS = 1000
LONG_TURNS = 100
HISTORIES = (2, 2000)
CHATS = (10, 100_000)
WARM_UP = 20
GOES_ON_S = 60.0

Report = tuple[str, tuple[str, ...], list[tuple[object, ...]]]


class Others:
    """The cores that processes outside this benchmark use from now on."""

    def __init__(self) -> None:
        self._busy, self._own, self._began = busy_s(), own_s(), time.perf_counter()

    def cores(self) -> float:
        used = (busy_s() - self._busy) - (own_s() - self._own)
        return max(0.0, used) / (time.perf_counter() - self._began)


async def queue_pick_up(turns: int) -> Report:
    """`queued_at` to `started_at`, by the database's clock, idle and beside 100 turns that run."""
    rows: list[tuple[object, ...]] = []
    async with running() as system:
        await repeat(system.turn, turns=WARM_UP)
        rows.append(("idle", *await _pick_up(system, turns)))
        await asyncio.gather(*(_long_turn(system) for _ in range(LONG_TURNS)))
        await _until_running(system, LONG_TURNS)
        rows.append((f"{LONG_TURNS} turns running", *await _pick_up(system, turns)))
    return "Queue pick-up", ("load", "p50 ms", "p99 ms", "turns", "others' cores"), rows


async def _pick_up(system: System, turns: int) -> tuple[float, float, int, float]:
    others = Others()
    sample = await repeat(system.turn, turns=turns)
    waits: list[float] = []
    for timed in sample.turns:
        chat, turn = timed.turn["chat_id"], timed.turn["id"]
        row = await system.get(f"/chats/{chat}/turns/{turn}")
        started, queued = (datetime.fromisoformat(row[key]) for key in ("started_at", "queued_at"))
        waits.append((started - queued).total_seconds() * 1000)
    return quantile(waits, 0.5), quantile(waits, 0.99), len(waits), others.cores()


async def _long_turn(system: System) -> None:
    content = [{"type": "text", "text": "/long 6000 50"}]
    await system.post("/chats", {"content": content, "model_config_id": system.config})


async def _until_running(system: System, turns: int) -> None:
    async with asyncio.timeout(60):
        while await system.db.fetchval(seeding.RUNNING) < turns:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def idle_followers(_turns: int) -> Report:
    """1000 streams of chats in which nothing happens, on one api process."""
    async with running() as system:
        api = psutil.Process(system.pids["api-0"])
        chats = [str(chat) for chat in await seeding.add_chats(system.db, FOLLOWERS)]
        async with AsyncExitStack() as few:
            for chat in chats[:WARM_UP]:
                await few.enter_async_context(_following(system, chat))
        before = api.memory_full_info()
        async with AsyncExitStack() as many:
            for chat in chats:
                await many.enter_async_context(_following(system, chat))
            after = api.memory_full_info()
            held = len(api.net_connections())
            if held < FOLLOWERS:
                raise RuntimeError(f"only {held} connections are open")
            connections = await _connections(system, api)
            cpu, began = api.cpu_times(), time.perf_counter()
            await asyncio.sleep(5)
            used = api.cpu_times()
            wall = time.perf_counter() - began
            cores = (used.user + used.system - cpu.user - cpu.system) / wall

    uss = (after.uss - before.uss) / 1024 / FOLLOWERS
    rss = (after.rss - before.rss) / 1024 / FOLLOWERS
    columns = ("followers", "Redis connections", "USS KiB each", "RSS KiB each", "api cores idle")
    return "Idle followers", columns, [(FOLLOWERS, connections, uss, rss, cores)]


@asynccontextmanager
async def _following(system: System, chat: str) -> AsyncGenerator[None]:
    """Follow until the way out; the snapshot has arrived."""
    async with system.chatd.stream("GET", f"{API}/chats/{chat}/stream") as answer:
        answer.raise_for_status()
        async with aclosing(answer.aiter_raw()) as chunks:  # dropping it would hang up
            await anext(chunks)
            yield


async def _connections(system: System, api: psutil.Process) -> int:
    """How many of Redis's clients are this process."""
    ports = {str(found.laddr.port) for found in api.net_connections() if found.laddr}
    clients: list[dict[str, Any]] = await system.redis.client_list()
    return sum(client["addr"].rpartition(":")[2] in ports for client in clients)


async def long_history(turns: int) -> Report:
    """A turn in a chat of 2 and of 2000 messages, nothing compacted."""
    rows: list[tuple[object, ...]] = []
    async with running() as system:
        await repeat(system.turn, turns=WARM_UP)
        for messages in HISTORIES:
            (chat,) = await seeding.add_chats(system.db, 1)
            await seeding.add_messages(system.db, chat, messages)
            ask = partial(system.turn, chat=str(chat))
            said = [{"role": "user", "content": seeding.LINE}] * messages
            alone = await repeat(partial(ask_model, system.model, history=said), turns=turns)
            rows.append((messages, alone.first_ms(), *await _cost(system, ask, turns)))
    return "Long history", ("messages", "model alone p50 ms", "first token p50 ms", *COST), rows


COST = ("CPU ms/turn", "others' cores")


async def _cost(system: System, ask: Ask, turns: int) -> tuple[float, float, float]:
    others, cpu = Others(), system.cpu_ms()
    sample: Sample = await repeat(ask, turns=turns)
    return sample.first_ms(), (system.cpu_ms() - cpu) / turns, others.cores()


async def many_chats(turns: int) -> Report:
    """Plain turns beside 10 and beside 100 000 chats with a finished turn and two messages each."""
    rows: list[tuple[object, ...]] = []
    async with running() as system:
        await repeat(system.turn, turns=WARM_UP)
        there = 0
        for wanted in CHATS:
            chats = await seeding.add_chats(system.db, wanted - there)
            await seeding.add_small_talk(system.db, chats)
            there = wanted
            rows.append((wanted, *await _cost(system, system.turn, turns)))
    return "Many chats", ("chats", "first token p50 ms", *COST), rows


async def two_workers(turns: int) -> Report:
    """Plain turns, 64 at once, for one worker process and for two."""
    rows: list[tuple[object, ...]] = []
    for workers in (1, 2):
        async with running(workers=workers) as system:
            await repeat(system.turn, at_once=16, turns=64)
            others, cpu = Others(), system.cpu_ms()
            sample = await repeat(system.turn, at_once=64, turns=turns * 5)
            cost = (system.cpu_ms() - cpu) / len(sample.turns)
            rows.append((workers, sample.rate, cost, others.cores()))
    return "Two workers", ("workers", "turns/s at 64", *COST), rows


async def crash(_turns: int) -> Report:
    """SIGKILL to the worker in the middle of its stream, until the turn's next token."""
    async with running(workers=4) as system:
        await repeat(system.turn, turns=WARM_UP)
        waits = [await _next_part(system) for _ in range(3)]
    rows: list[tuple[object, ...]] = [(min(waits), quantile(waits, 0.5), max(waits))]
    return "Crash to continue", ("least s", "median s", "most s"), rows


async def _next_part(system: System) -> float:
    body = {"content": [{"type": "text", "text": "/long 200 20"}], "model_config_id": system.config}
    killed = went_on = 0.0
    async with (
        asyncio.timeout(GOES_ON_S),
        system.chatd.stream(
            "POST", f"{API}/chats", json=body, headers={"Accept": "text/event-stream"}
        ) as answer,
    ):
        # To its end: the next round must find one turn running.
        async for chunk in answer.aiter_raw():
            if not killed and PART in chunk:
                worker: str = await system.db.fetchval(seeding.WORKER)
                os.kill(int(worker.split(":")[1]), signal.SIGKILL)
                killed = time.perf_counter()
            elif killed and not went_on and PART in chunk and b'"attempt":2' in chunk:
                went_on = time.perf_counter()
    if not went_on:
        raise RuntimeError("the stream ended before the turn went on")
    return went_on - killed


CELLS: dict[str, Callable[[int], Awaitable[Report]]] = {
    "queue": queue_pick_up,
    "followers": idle_followers,
    "history": long_history,
    "chats": many_chats,
    "workers": two_workers,
    "crash": crash,
}


async def measure(name: str, turns: int) -> str:
    """One cell as a table."""
    return show(*await CELLS[name](turns))
