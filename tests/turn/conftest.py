"""Turns on the scripted model and the demo MCP server, run by hand."""

from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from chatd.dev.served import Served
from chatd.store.db import Database
from tests.seed import make_seed, make_server
from tests.turn.bench import Bench
from tests.turning import turn_deps


@pytest.fixture
def appended(services_folder: Path) -> Callable[[str], int]:
    """How often `demo__append` really ran with this text."""
    file = services_folder / "demo-server" / "demo-journal.txt"
    return lambda text: file.read_text().splitlines().count(text) if file.exists() else 0


@pytest.fixture
async def bench(
    db: Database, redis: Redis, scripted_model: Served, demo_server: Served
) -> AsyncGenerator[Bench]:
    seed = await make_seed(db, scripted_model.url)
    server_id = await make_server(
        db, url=demo_server.url, availability="default_on", trust_annotations=True
    )
    async with turn_deps(db, redis) as deps:
        yield Bench(seed, deps, redis, server_id)
