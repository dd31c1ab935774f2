"""arq's jobs: the wake-up, and maintenance by the clock."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from arq import cron
from arq.cron import CronJob

from chatd.core.errors import Unavailable
from chatd.queue import WAKE_JOB
from chatd.store.db import Database
from chatd.store.purging import forget_keys, purge_chats

Context = dict[Any, Any]


@dataclass(frozen=True, slots=True)
class JobDeps:
    """What the jobs need; arq's context carries it under `deps` and no further."""

    db: Database
    wake: Callable[[], None]


async def wake(ctx: Context) -> None:
    """Something is runnable. Reached by arq's poll when the hint was lost."""
    _deps(ctx).wake()


async def purge(ctx: Context) -> None:
    """Remove what is over, batch by batch; while PostgreSQL is away, a minute later."""
    db = _deps(ctx).db
    with suppress(Unavailable):
        while await purge_chats(db):
            pass
        while await forget_keys(db):
            pass


def _deps(ctx: Context) -> JobDeps:
    return ctx["deps"]


assert wake.__name__ == WAKE_JOB

CRON: tuple[CronJob, ...] = (cron(purge, name="purge", second=0, timeout=300),)
"""Each runs once a minute in one worker of the fleet."""
