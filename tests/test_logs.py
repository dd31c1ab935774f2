"""Log lines: their ids, and no secrets."""

import json
import logging
from collections.abc import Generator
from typing import Any
from uuid import UUID

import pytest
import structlog

from chatd import logs

Lines = list[Any]


@pytest.fixture
def lines() -> Generator[Lines]:
    """What is logged, parsed; the logging of the test run is put back afterwards."""
    written: Lines = []
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    before = structlog.get_config()
    logs.configure("json", "info", write=lambda line: written.append(json.loads(line)))
    yield written
    logging.captureWarnings(capture=False)
    structlog.configure(**before)
    root.handlers = handlers
    root.setLevel(level)


LOG = logs.get("tests")


def test_a_line_says_where_it_belongs(lines: Lines) -> None:
    with logs.context(request_id="r1", chat=UUID(int=1)):
        LOG.info("hello", steps=3)
    LOG.info("bye")
    assert lines[0] | {"timestamp": ""} == {
        "event": "hello",
        "module": "tests",
        "level": "info",
        "timestamp": "",
        "request_id": "r1",
        "chat": str(UUID(int=1)),
        "steps": 3,
    }
    assert "chat" not in lines[1]


def test_the_standard_library_goes_the_same_way(lines: Lines) -> None:
    with logs.context(turn="t1"):
        logging.getLogger("uvicorn.error").warning("%d%% of %s", 5, "Bearer abcdefgh")
    (line,) = lines
    assert (line["event"], line["level"]) == ("5% of Bearer [redacted]", "warning")
    assert (line["module"], line["turn"]) == ("uvicorn.error", "t1")


def test_levels_below_are_not_written(lines: Lines) -> None:
    LOG.debug("no")
    logging.getLogger("any").debug("no")
    logging.getLogger("uvicorn.access").info("no")
    logging.getLogger("httpx2").info("no")
    assert lines == []


SECRET = "s3cr3t-value"


@pytest.mark.parametrize(
    "field",
    [
        {"token": SECRET},
        {"Authorization": SECRET},
        {"headers": {"Set-Cookie": SECRET, "X-Api-Key": SECRET}},
        {"nested": [{"client_secret": SECRET}, {"deep": {"refresh_token": SECRET}}]},
        {"code": SECRET},
        {"dbPassword": SECRET},
        {"url": f"https://user:{SECRET}@host/path"},
        {"url": f"https://host/callback?code={SECRET}&state=1"},
        {"url": f"https://host/?x=1&access_token={SECRET}"},
        {"text": f"Authorization: Bearer {SECRET}"},
        {"text": f"authorization=Basic {SECRET}"},
        {"text": f'{{"api_key": "{SECRET}", "x": 1}}'},
        {"text": f"{{'password': '{SECRET}'}}"},
        {"text": f"Cookie: a=1; session={SECRET}"},
        {"text": f"sk-{SECRET}"},
        {"text": f"chatd_{SECRET}{SECRET}"},
        {"text": f"chatds_{SECRET}{SECRET}.{SECRET}{SECRET}"},
        {"text": f"eyJhbGciOiJIUzI1NiJ9.{SECRET}.{SECRET}"},
        {"error": RuntimeError(f"token={SECRET}")},
    ],
)
def test_no_secret_is_written(lines: Lines, field: dict[str, Any]) -> None:
    LOG.info("event", **field)
    assert SECRET not in json.dumps(lines)
    assert "[redacted]" in json.dumps(lines)


def test_exceptions_are_written_without_their_secrets(lines: Lines) -> None:
    try:
        try:
            raise ValueError(f"api_key={SECRET}")
        except ValueError as error:
            raise RuntimeError(f"postgresql://chatd:{SECRET}@db/chatd") from error
    except RuntimeError:
        LOG.exception("failed")
        logging.getLogger("library").exception("failed too")
    assert len(lines) == 2
    for line in lines:
        assert "RuntimeError" in line["exception"]
        assert "ValueError" in line["exception"]
    assert SECRET not in json.dumps(lines)


def test_what_is_no_secret_stays(lines: Lines) -> None:
    LOG.info(
        "the token expired", status_code=404, input_tokens=5, token_id="a", ok=True, path="/keys"
    )
    assert lines[0]["event"] == "the token expired"
    assert (lines[0]["status_code"], lines[0]["input_tokens"]) == (404, 5)
    assert (lines[0]["token_id"], lines[0]["ok"], lines[0]["path"]) == ("a", True, "/keys")


def test_nothing_that_is_logged_loses_its_line(lines: Lines) -> None:
    LOG.info("odd", text="\ud800", number=2**70, value=object, nothing=float("nan"))
    assert lines[0]["number"] == 2**70


def test_a_line_for_the_eye(capfd: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()
    handlers = logging.getLogger().handlers
    try:
        logs.configure("console", "info")
        LOG.info("hello", token=SECRET)
    finally:
        structlog.configure(**before)
        logging.captureWarnings(capture=False)
        logging.getLogger().handlers = handlers
    shown = capfd.readouterr()
    assert "hello" in shown.err
    assert SECRET not in shown.err
    assert shown.out == ""
