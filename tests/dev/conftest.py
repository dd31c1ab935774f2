"""Folders that the user PostgreSQL runs as can reach, and the two demo servers."""

import asyncio
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chatd.dev.served import Served
from chatd.dev.stack import start_demo_mcp, start_model


@contextmanager
def _folder(parent: Path) -> Generator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="chatd-tests-", dir=parent))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def state(fast_folder: Path) -> Generator[Path]:
    """A folder of the test's own."""
    with _folder(fast_folder) as folder:
        yield folder


@pytest.fixture(scope="module")
def used_state(fast_folder: Path) -> Generator[Path]:
    """One folder for the tests of a module that do not mind what was there before."""
    with _folder(fast_folder) as folder:
        yield folder


@pytest.fixture(scope="session")
def model(services_folder: Path) -> Generator[Served]:
    served = asyncio.run(start_model(services_folder / "model"))
    yield served
    asyncio.run(served.stop())


@pytest.fixture(scope="session")
def demo_mcp(services_folder: Path) -> Generator[Served]:
    served = asyncio.run(start_demo_mcp(services_folder / "demo"))
    yield served
    asyncio.run(served.stop())
