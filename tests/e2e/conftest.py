"""One installation per session; most tests share its worker, some bring their own and kill them."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from chatd.store.db import Database
from tests.e2e.client import Client
from tests.e2e.fleet import Fleet, Process


@pytest.fixture(scope="session")
def fleet(services_folder: Path) -> Generator[Fleet]:
    fleet = asyncio.run(Fleet.start(services_folder / f"fleet-{uuid4().hex[:8]}"))
    yield fleet
    asyncio.run(fleet.close())


@pytest.fixture
async def worker(fleet: Fleet) -> Process:
    """The worker that tests share."""
    if not fleet.workers:
        await fleet.worker()
    return fleet.workers[0]


@pytest.fixture
async def crew(fleet: Fleet) -> AsyncGenerator[Fleet]:
    """The fleet without workers: the test starts its own and may kill them."""
    await fleet.dismiss()
    yield fleet
    await fleet.dismiss()


@pytest.fixture
async def member(fleet: Fleet) -> AsyncGenerator[Client]:
    async with fleet.client("max") as client:
        yield client


@pytest.fixture
async def admin(fleet: Fleet) -> AsyncGenerator[Client]:
    async with fleet.admin() as client:
        yield client


@pytest.fixture
async def model(fleet: Fleet) -> AsyncGenerator[httpx2.AsyncClient]:
    """The scripted model; it tells what it was asked since this test began."""
    base = fleet.model_url.removesuffix("/v1")
    async with httpx2.AsyncClient(base_url=base, trust_env=False, verify=False) as http:
        await http.delete("/requests")
        yield http


@pytest.fixture
async def db(fleet: Fleet) -> AsyncGenerator[Database]:
    """The fleet's database, to look behind the front door."""
    db = Database(fleet.stack.database_url, pool_size=2)
    yield db
    await db.close()
