"""`chatd` as its user types it, with settings for a database of the test's own."""

import base64
import logging
import os
from collections.abc import Callable, Generator

import pytest
import structlog
from typer.testing import CliRunner, Result

from chatd.cli.main import app

Chatd = Callable[..., Result]
KEY = base64.b64encode(os.urandom(32)).decode()


@pytest.fixture
def environment(database_url: str) -> dict[str, str | None]:
    return {"CHATD_DATABASE_URL": database_url, "CHATD_ENCRYPTION_KEYS": f"k1:{KEY}"}


@pytest.fixture
def chatd(environment: dict[str, str | None]) -> Generator[Chatd]:
    """Run a command in this process; `fails` says that it must."""

    def run(*words: str, stdin: str = "", fails: bool = False, **env: str) -> Result:
        result = CliRunner().invoke(app, words, input=stdin, env=environment | env)
        assert result.exit_code == (1 if fails else 0), result.output
        return result

    # A command sets up the logging of its process, which here is the tests'.
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers, root.level
    yield run
    logging.captureWarnings(capture=False)
    structlog.configure(**before)
    root.handlers = handlers
    root.setLevel(level)
