"""Folders that the user PostgreSQL runs as can reach, the demo servers, and who asks them."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from openai import AsyncOpenAI

from chatd.dev.served import Served
from chatd.dev.stack import start_demo_mcp, start_model
from tests.dev.asking import Asker


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


@pytest.fixture
async def client(model: Served) -> AsyncGenerator[AsyncOpenAI]:
    # Reading the system's certificates would take longer than most of the tests.
    http = httpx2.AsyncClient(trust_env=False, verify=False)
    async with AsyncOpenAI(
        base_url=model.url, api_key="any", max_retries=0, http_client=http
    ) as client:
        yield client


@pytest.fixture(params=["streamed", "whole"])
def ask(request: pytest.FixtureRequest, client: AsyncOpenAI) -> Asker:
    return Asker(client, stream=request.param == "streamed")


@pytest.fixture
async def http(model: Served) -> AsyncGenerator[httpx2.AsyncClient]:
    base = model.url.removesuffix("/v1")
    async with httpx2.AsyncClient(base_url=base, trust_env=False, verify=False) as http:
        await http.delete("/requests")
        yield http
