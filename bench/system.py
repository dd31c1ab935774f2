"""A chatd of our own to measure: `bench.serve` as a child, the scripted model beside it."""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import orjson
import psutil
from redis.asyncio import Redis

from bench.asking import API, NAME, Timed, ask_chatd, ask_model, open_client
from chatd.dev.ports import free_port
from chatd.dev.stack import start_model

ROOT = Path(__file__).resolve().parents[1]
START_S = 90.0
STOP_S = 20.0


@dataclass(frozen=True)
class System:
    """What runs, and clients of it."""

    chatd: httpx2.AsyncClient
    model: httpx2.AsyncClient
    config: str
    db: "asyncpg.Connection[Any]"
    redis: Redis
    pids: dict[str, int]
    """Of its processes, by name: postgres, valkey, worker-0 …, api-0 …"""

    async def turn(self, text: str | None = None, chat: str | None = None) -> Timed:
        if text is None:
            return await ask_chatd(self.chatd, self.config, chat=chat)
        return await ask_chatd(self.chatd, self.config, text, chat)

    async def direct(self) -> Timed:
        return await ask_model(self.model)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self.chatd.post(API + path, json=body)
        answer.raise_for_status()
        return answer.json()

    async def get(self, path: str) -> dict[str, Any]:
        answer = await self.chatd.get(API + path)
        answer.raise_for_status()
        return answer.json()

    def cpu_ms(self) -> float:
        """Of all processes so far, their children too (PostgreSQL's connections)."""
        return sum(spent_ms(pid) for pid in self.pids.values())


def spent_ms(pid: int) -> float:
    """CPU-ms of a process and its living children."""
    process = psutil.Process(pid)
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            used = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += (used.user + used.system) * 1000
    return total


def busy_s() -> float:
    """CPU-seconds that the whole machine has used."""
    used = psutil.cpu_times()
    away = used.irq + used.softirq + used.steal
    return used.user + used.nice + used.system + away


def own_s() -> float:
    """CPU-seconds of this process and everything below it."""
    return spent_ms(psutil.Process().pid) / 1000


@asynccontextmanager
async def running(*, workers: int = 1) -> AsyncGenerator[System]:
    """A new system in a temporary folder; everything has ended on the way out."""
    with tempfile.TemporaryDirectory(prefix="chatd-bench-") as folder:
        data, port = Path(folder) / "data", free_port()
        model = await start_model(Path(folder) / "model")
        served = _serve(port, data, workers)
        try:
            base = f"http://127.0.0.1:{port}"
            await _until_ready(base, served)
            told = orjson.loads((data / "bench.json").read_bytes())
            async with (
                open_client(base, {"Authorization": f"Bearer {told['token']}"}) as chatd,
                open_client(model.url.rstrip("/") + "/") as direct,
                Redis.from_url(told["redis_url"]) as redis,
            ):
                url = told["database_url"].replace("+asyncpg", "")
                db: asyncpg.Connection[Any] = await asyncpg.connect(url)
                try:
                    config = await _configure(chatd, model.url)
                    yield System(chatd, direct, config, db, redis, told["pids"])
                finally:
                    await db.close()
        finally:
            served.terminate()
            await asyncio.to_thread(_ended, served)
            await model.stop()


def _serve(port: int, data: Path, workers: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "bench.serve", "--port", str(port), "--data", str(data)]
    return subprocess.Popen([*command, "--workers", str(workers)], cwd=ROOT)


async def _configure(chatd: httpx2.AsyncClient, url: str) -> str:
    provider = {"provider": "openai-compat", "base_url": url}
    added = (await chatd.post(f"{API}/chats/providers", json=provider)).json()
    config = {"provider_id": added["id"], "model": NAME, "context_limit": 1_000_000}
    return (await chatd.post(f"{API}/chats/model-configs", json=config)).json()["id"]


async def _until_ready(base: str, served: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + START_S
    async with open_client(base) as client:
        while time.monotonic() < end and served.poll() is None:
            try:
                if (await client.get("/readyz")).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.1)
    raise RuntimeError("chatd did not start")


def _ended(served: "subprocess.Popen[bytes]") -> None:
    try:
        served.wait(STOP_S)
    except subprocess.TimeoutExpired:
        served.kill()
        served.wait()
