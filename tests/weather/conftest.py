"""One installation per session, and what an undisturbed run of every moment says."""

import asyncio
from collections.abc import Generator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.e2e.fleet import Fleet


@pytest.fixture(scope="session")
def fleet(services_folder: Path) -> Generator[Fleet]:
    fleet = asyncio.run(Fleet.start(services_folder / f"weather-{uuid4().hex[:8]}"))
    yield fleet
    asyncio.run(fleet.close())


@pytest.fixture(scope="session")
def calm() -> dict[str, list[object]]:
    """By moment; filled by the first test that needs it."""
    return {}
