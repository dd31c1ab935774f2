"""arq's jobs: the wake-up, and maintenance by the clock."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from arq import cron
from arq.cron import CronJob

from chatd.core.errors import Unavailable
from chatd.queue import WAKE_JOB
from chatd.store.archiving import archive_stale, find_stale
from chatd.store.config import read_config
from chatd.store.db import Database
from chatd.store.oauth_clients import forget_clients
from chatd.store.oauth_states import forget_states
from chatd.store.purging import (
    forget_calls,
    forget_connections,
    forget_entries,
    forget_keys,
    forget_tokens,
    purge_archived,
    purge_chats,
    purge_files,
)
from chatd.store.sessions import forget_sessions
from chatd.stream.publisher import Publisher

Context = dict[Any, Any]


@dataclass(frozen=True, slots=True)
class JobDeps:
    """What the jobs need; arq's context carries it under `deps` and no further."""

    db: Database
    publisher: Publisher
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


async def retain(ctx: Context) -> None:
    """Archive what nobody writes in any more, then remove what was archived for long enough.

    Two at once are harmless: each looks again under its locks, and skips what the other holds.
    """
    deps = _deps(ctx)
    with suppress(Unavailable):
        config = await read_config(deps.db)
        for root_id, owner_id in await find_stale(deps.db, config):
            for chat_id, version in (await archive_stale(deps.db, root_id, config)).items():
                deps.publisher.announce(chat_id, version, owner_id=owner_id)
        while await purge_archived(deps.db, config):
            pass
        while await purge_files(deps.db):
            pass
        while await forget_states(deps.db):
            pass


async def forget(ctx: Context) -> None:
    """Remove lines of the audit log, dead tokens and sessions, and clients that nobody needs, once
    they were kept long enough, batch by batch.

    Two at once are harmless: each skips what the other holds, or finds it gone.
    """
    db = _deps(ctx).db
    with suppress(Unavailable):
        for remove in (forget_tokens, forget_sessions, forget_clients):
            while await remove(db):
                pass
        audit = (await read_config(db)).audit
        while await forget_entries(db, audit.retention_days):
            pass
        while await forget_connections(db, audit.connection_retention_days):
            pass
        last = await forget_calls(db, audit.retention_days)
        while last is not None:
            last = await forget_calls(db, audit.retention_days, last)


def _deps(ctx: Context) -> JobDeps:
    return ctx["deps"]


assert wake.__name__ == WAKE_JOB

CRON: tuple[CronJob, ...] = (
    cron(purge, name="purge", second=0, timeout=300),
    cron(retain, name="retain", minute=set(range(0, 60, 10)), second=30, timeout=590),
    cron(forget, name="forget", hour=3, minute=17, second=45, timeout=3600),
)
"""Each once a minute, every ten or once a night, in one worker of the fleet."""
