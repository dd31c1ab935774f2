"""What happens to the fleet of a soak. The first front door and the first worker live through all.

Each answers when the damage is mended, not when the turns have recovered.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable

from redis import asyncio as redis

from tests.e2e.fleet import Fleet

FROZEN_S = 14.0
"""Longer than a lease and a round of the sweeper."""


async def kill_worker(fleet: Fleet) -> None:
    fleet.workers.pop().child.kill()
    await fleet.worker(8)


async def stop_worker(fleet: Fleet) -> None:
    leaving = fleet.workers.pop()
    leaving.child.send_signal(signal.SIGTERM)
    await fleet.worker(8)
    await leaving.child.wait()


async def freeze_worker(fleet: Fleet) -> None:
    frozen = fleet.workers[-1].child
    frozen.send_signal(signal.SIGSTOP)
    await asyncio.sleep(FROZEN_S)
    frozen.send_signal(signal.SIGCONT)


async def kill_api(fleet: Fleet) -> None:
    fleet.apis[-1].child.kill()
    del fleet.apis[-1]
    await fleet.api()


async def restart_redis(fleet: Fleet) -> None:
    assert fleet.stack.valkey is not None
    fleet.stack.valkey.kill()
    await fleet.stack.valkey.restart()


async def flush_redis(fleet: Fleet) -> None:
    async with redis.Redis.from_url(fleet.stack.redis_url) as client:
        await client.flushall()


async def restart_postgres(fleet: Fleet) -> None:
    assert fleet.stack.postgres is not None
    fleet.stack.postgres.kill()
    await fleet.stack.postgres.restart()


FAULTS: dict[str, Callable[[Fleet], Awaitable[None]]] = {
    "kill -9 worker": kill_worker,
    "SIGTERM worker": stop_worker,
    "SIGSTOP past the lease": freeze_worker,
    "kill -9 api": kill_api,
    "Redis restart": restart_redis,
    "FLUSHALL": flush_redis,
    "PostgreSQL restart": restart_postgres,
}
