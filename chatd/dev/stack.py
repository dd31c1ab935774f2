"""Everything chatd needs around it, started together and stopped in order."""

import os
from asyncio import Task, create_task, gather
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chatd.dev.lock import hold
from chatd.dev.postgres import Postgres
from chatd.dev.served import Served
from chatd.dev.valkey import Valkey

Service = Postgres | Valkey | Served


@dataclass(frozen=True)
class Stack:
    """What runs. A service is None when its URL was given, or when nobody asked for it."""

    database_url: str
    redis_url: str
    postgres: Postgres | None
    valkey: Valkey | None
    model: Served | None
    demo_mcp: Served | None
    # Held until `close`, or until we die.
    lock: AsyncExitStack = field(repr=False)

    async def close(self) -> None:
        """Stop what we started: first the users of others, then the others."""
        try:
            await _stop([service for service in (self.model, self.demo_mcp) if service])
            await _stop([service for service in (self.valkey, self.postgres) if service])
        finally:
            await self.lock.aclose()


async def start_stack(
    data: Path,
    *,
    database_url: str | None = None,
    redis_url: str | None = None,
    model: bool = False,
    demo_mcp: bool = False,
    durable: bool = True,
) -> Stack:
    """Start what has no URL yet, with its files below `data`: all or nothing, in the main thread.

    Raises `InUse` when another stack runs there.
    """
    os.makedirs(data, exist_ok=True)
    async with AsyncExitStack() as lock:
        # A parent that was killed a moment ago may not be quite dead yet.
        await lock.enter_async_context(hold(data / "lock", within=0.5))
        postgres = (
            None
            if database_url
            else create_task(Postgres.start(data / "postgres", durable=durable))
        )
        valkey = None if redis_url else create_task(Valkey.start(data / "valkey", durable=durable))
        scripted = create_task(start_model(data / "logs")) if model else None
        demo = create_task(start_demo_mcp(data / "logs")) if demo_mcp else None
        await _all_or_nothing([task for task in (postgres, valkey, scripted, demo) if task])
        return Stack(
            database_url=postgres.result().url if postgres else str(database_url),
            redis_url=valkey.result().url if valkey else str(redis_url),
            postgres=postgres and postgres.result(),
            valkey=valkey and valkey.result(),
            model=scripted and scripted.result(),
            demo_mcp=demo and demo.result(),
            lock=lock.pop_all(),
        )


async def start_model(folder: Path, *, port: int = 0) -> Served:
    """The scripted model; its `url` is a base URL for OpenAI clients."""
    return await Served.start("chatd.dev.scripted_model", folder=folder, port=port)


async def start_demo_mcp(folder: Path, *, port: int = 0) -> Served:
    """The demo MCP server; what `append` writes is kept in `folder`."""
    journal = str(folder / "demo-journal.txt")
    return await Served.start("chatd.dev.demo_mcp", "--journal", journal, folder=folder, port=port)


async def _all_or_nothing(starting: Sequence[Task[Any]]) -> None:
    try:
        await gather(*starting)
    except BaseException:
        for task in starting:
            task.cancel()
        ended = await gather(*starting, return_exceptions=True)
        await _stop([service for service in ended if isinstance(service, Service)])
        raise


async def _stop(services: Sequence[Service]) -> None:
    await gather(*(service.stop() for service in services))
