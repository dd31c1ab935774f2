"""One line of JSON (or one for the eye) an event: with its ids, and without secrets."""

import json
import logging
import sys
from collections.abc import Callable, MutableMapping
from contextlib import AbstractContextManager
from typing import Any, Literal

import orjson
import structlog
from structlog.typing import FilteringBoundLogger, Processor

from chatd.core.redaction import redact

Format = Literal["json", "console"]
Line = MutableMapping[str, Any]

# Our own request line replaces uvicorn's access log; the others narrate every call they make.
_QUIET = ("uvicorn.access", "httpx2", "httpcore2", "mcp", "openai", "asyncio", "alembic")


def get(name: str) -> FilteringBoundLogger:
    """The logger of a module; lines carry the name as `module`."""
    return structlog.get_logger(module=name)


def context(**ids: object) -> AbstractContextManager[None]:
    """Bind ids (`request_id`, `chat`, `turn`, `worker`) to every line written inside."""
    return structlog.contextvars.bound_contextvars(**{key: str(ids[key]) for key in ids})


def bind(**ids: object) -> None:
    """Bind ids to every line this task writes from here on, until `unbind`."""
    structlog.contextvars.bind_contextvars(**{key: str(ids[key]) for key in ids})


def unbind(*names: str) -> None:
    structlog.contextvars.unbind_contextvars(*names)


def configure(form: Format, level: str, *, write: Callable[[bytes], object] | None = None) -> None:
    """Set up this process: our own lines and the standard library's go one way, to stderr."""
    number = logging.getLevelNamesMapping()[level.upper()]
    output = _Lines(write or _to_stderr)
    structlog.configure(
        processors=_processors(form),
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_ToStructlog()]
    root.setLevel(number)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "arq", "fastapi"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    logging.captureWarnings(capture=True)


def redact_line(_: object, __: str, line: Line) -> Line:
    """The one processor that takes secrets out, exception texts included."""
    clean = redact(line)
    assert isinstance(clean, dict)
    return clean


def _processors(form: Format) -> list[Processor]:
    render: list[Processor] = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()), _encode]
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact_line,
        *([_json] if form == "json" else render),
    ]


def _json(_: object, __: str, line: Line) -> bytes:
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        # A lone surrogate or a huge integer: slower, but a line is never lost.
        return f"{json.dumps(line)}\n".encode()


def _encode(_: object, __: str, line: Any) -> bytes:
    return f"{line}\n".encode(errors="replace")


def _to_stderr(line: bytes) -> None:
    sys.stderr.buffer.write(line)
    sys.stderr.buffer.flush()


class _Lines:
    """Where rendered lines end; structlog calls the method named like the level."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = write


class _ToStructlog(logging.Handler):
    """Gives the standard library's records to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        # As an argument of "%s": a message may hold percent signs of its own.
        get(record.name).log(level, "%s", record.getMessage(), exc_info=record.exc_info or None)
