"""A worker process keeps logins alive that nobody uses."""

import base64
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from uuid import uuid4

import pytest

from chatd.dev.children import Child, Spec, start_child
from chatd.dev.valkey import Valkey
from chatd.store.db import Database
from tests.credentials.accounts import account_of, connect, keep, make_oauth_server
from tests.credentials.rotating import Rotating, running
from tests.e2e.fleet import ROOT
from tests.starting import RUN
from tests.waiting import until

KEY = base64.b64encode(bytes(range(32))).decode()
OFTEN = "from chatd.credentials import keeping; keeping.EVERY_S = 0.05"
"""It looks every few minutes otherwise."""


@pytest.fixture
async def authority() -> AsyncGenerator[Rotating]:
    async with running(Rotating(lifetime_s=3600)) as server:
        yield server


@pytest.fixture
async def worker(
    db: Database, database_url: str, valkey: Valkey, services_folder: Path
) -> AsyncGenerator[Child]:
    env = {
        "PATH": os.defpath,
        "CHATD_DATABASE_URL": database_url,
        "CHATD_REDIS_URL": valkey.url,
        "CHATD_ENCRYPTION_KEYS": f"test:{KEY}",
        "CHATD_MCP_ALLOWED_CIDRS": "127.0.0.0/8",
        "CHATD_DRAIN_GRACE_SECONDS": "0",
        "CHATD_OAUTH_KEEP_ALIVE_DAYS": "1",
    }
    log = services_folder / f"keeper-{uuid4().hex}.log"
    command = (sys.executable, "-c", f"{OFTEN}; {RUN}", "worker")
    child = start_child(Spec(command, log=log, cwd=ROOT, env=env, grace=20))
    yield child
    await child.stop()


async def test_a_login_that_nobody_has_used_for_days_is_renewed(
    db: Database, authority: Rotating, worker: Child
) -> None:
    idle = await connect(db, authority)
    other = await make_oauth_server(db, authority, slug="other")
    await keep(db, authority, authority.grant(), server_id=other, user_id=idle.user_id)
    used = await account_of(db, other, idle.user_id)
    await db.fetch(
        """UPDATE oauth_tokens SET refreshed_at = now() - interval '2 days',
            expires_at = now() - interval '2 days' + make_interval(secs => lifetime_seconds)
        WHERE id = $1""",
        idle.token_id,
    )

    async def renewed() -> bool:
        return (await idle.token()).generation == 2

    await until(renewed)
    assert (await used.token()).generation == 1
    assert authority.refreshes == 1
