"""A `chatd dev` to talk to, started as a newcomer does."""

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.cli.commands import chatd, environment
from tests.cli.running import Dev

__all__ = ["chatd", "environment"]


@pytest.fixture(scope="session")
def shared_dev(services_folder: Path) -> Generator[Dev]:
    """One for all tests that leave it running."""
    with Dev.started(services_folder / "dev") as dev:
        yield dev
