"""Programs that nobody here wrote; without npm the tests of those that it installs are skipped."""

import asyncio
import fcntl
import shutil
import subprocess
from collections.abc import Generator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.e2e.conftest import admin, crew, db, fleet, member, worker
from tests.peers.programs import Peer, start_aimock, start_everything

__all__ = ["admin", "crew", "db", "fleet", "member", "worker"]

HERE = Path(__file__).parent
INSTALL = ("ci", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1")
WITHIN_S = 90


@pytest.fixture(scope="session")
def packages() -> Path:
    """The folder of the packages that package-lock.json names."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("npm is not installed")
    with (HERE / "package-lock.json").open("rb") as lock:
        # Another process of this test run may be about to do the same.
        fcntl.flock(lock, fcntl.LOCK_EX)
        _install(npm, sha256(lock.read()).hexdigest())
    return HERE / "node_modules"


def _install(npm: str, wanted: str) -> None:
    installed = HERE / "node_modules" / ".installed"
    if installed.exists() and installed.read_text() == wanted:
        return
    try:
        done = subprocess.run(
            [npm, *INSTALL], cwd=HERE, capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm could not install the peers in {WITHIN_S} s")
    if done.returncode != 0:
        pytest.skip(f"npm could not install the peers: {done.stderr[-500:]}")
    installed.write_text(wanted)


@pytest.fixture(scope="session", params=["streamable_http", "sse"])
def everything(
    request: pytest.FixtureRequest, packages: Path, services_folder: Path
) -> Generator[Peer]:
    """MCP's own reference server, over each of its transports."""
    peer = asyncio.run(start_everything(packages, services_folder, request.param))
    yield peer
    asyncio.run(peer.child.stop())


@pytest.fixture(scope="session")
def aimock(packages: Path, services_folder: Path) -> Generator[Peer]:
    """A model server that plays aimock.json in OpenAI's format."""
    peer = asyncio.run(start_aimock(packages, services_folder, HERE / "aimock.json"))
    yield peer
    asyncio.run(peer.child.stop())
