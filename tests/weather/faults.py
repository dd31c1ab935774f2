"""What may happen to an installation, and how it comes back."""

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from redis import asyncio as redis

from tests.e2e.client import Client
from tests.waiting import until
from tests.weather.ground import Ground, new_worker

Happens = Callable[[Ground], Coroutine[None, None, None]]

TURNS_OF_WORKER = "SELECT 1 FROM turns WHERE lease_id IS NOT NULL AND worker_id LIKE $1 LIMIT 1"


async def nothing(ground: Ground) -> None:
    """What happened needs no mending."""


@dataclass(frozen=True)
class Fault:
    """`strike`, then everything that was held back goes on, then `mend`."""

    name: str
    strike: Happens
    mend: Happens = nothing
    before: Happens = nothing
    loses_worker: bool = False
    """Its turns go on elsewhere, as a new attempt."""
    comes_back: bool = False
    """Nobody can do anything before it is mended."""


async def second_worker(ground: Ground) -> None:
    """Stopped until it is needed, so that every turn is in the other one's hands."""
    ground.spare = await new_worker(ground.fleet)
    ground.spare.child.send_signal(signal.SIGSTOP)


def wake_second(ground: Ground) -> None:
    assert ground.spare is not None
    ground.spare.child.send_signal(signal.SIGCONT)


async def kill_worker(ground: Ground) -> None:
    wake_second(ground)
    ground.worker.child.kill()


async def stop_worker(ground: Ground) -> None:
    wake_second(ground)
    ground.worker.child.send_signal(signal.SIGTERM)


async def freeze_worker(ground: Ground) -> None:
    wake_second(ground)
    ground.worker.child.send_signal(signal.SIGSTOP)


async def thaw_worker(ground: Ground) -> None:
    """After its leases have run out and its turns are in other hands."""
    frozen = f"%:{ground.worker.child.pid}:%"

    async def taken() -> bool:
        return not await ground.db.fetch(TURNS_OF_WORKER, frozen)

    await until(taken, 40)
    ground.worker.child.send_signal(signal.SIGCONT)


async def second_door(ground: Ground) -> None:
    """Readers come through a front door that is about to be lost."""
    door = await ground.fleet.api()
    client = Client(door.url, ground.fleet.tokens["max"])
    await ground.stack.enter_async_context(client)
    ground.victim = client


async def kill_door(ground: Ground) -> None:
    ground.fleet.apis.pop().child.kill()
    ground.victim = None


async def kill_redis(ground: Ground) -> None:
    ground.valkey.kill()


async def restart_redis(ground: Ground) -> None:
    await ground.valkey.restart()
    ground.whole_at = time.monotonic()


async def flush(ground: Ground) -> None:
    async with redis.Redis.from_url(ground.valkey.url) as client:
        await client.flushall()


async def kill_postgres(ground: Ground) -> None:
    ground.postgres.kill()


async def restart_postgres(ground: Ground) -> None:
    await ground.postgres.restart()
    ground.whole_at = time.monotonic()


async def hang_up(ground: Ground) -> None:
    for scene in ground.scenes:
        scene.reader.hang_up()


async def come_back(ground: Ground) -> None:
    await asyncio.sleep(0.5)
    for scene in ground.scenes:
        scene.reader.come_back()


FAULTS = (
    Fault("kill -9 worker", kill_worker, before=second_worker, loses_worker=True),
    Fault("SIGTERM worker", stop_worker, before=second_worker, loses_worker=True),
    Fault(
        "SIGSTOP past the lease",
        freeze_worker,
        thaw_worker,
        before=second_worker,
        loses_worker=True,
    ),
    Fault("kill -9 api", kill_door, before=second_door),
    Fault("Redis restart", kill_redis, restart_redis, comes_back=True),
    Fault("FLUSHALL", flush),
    Fault("PostgreSQL restart", kill_postgres, restart_postgres, comes_back=True),
    Fault("reader disconnects", hang_up, come_back),
)
