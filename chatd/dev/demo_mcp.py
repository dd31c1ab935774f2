"""The demo MCP server: a few honest tools over streamable HTTP, old handshake and new."""

import argparse
import asyncio
import struct
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from mcp.server import MCPServer
from mcp.server.mcpserver import Context, Image
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp_types import ToolAnnotations
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import Field
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from chatd.dev.demo_questions import STATE, ask, confirm, talk, visit
from chatd.dev.serving import serve

SAFE = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
UNSAFE = ToolAnnotations(
    read_only_hint=False, idempotent_hint=False, destructive_hint=False, open_world_hint=False
)


async def current_time(
    timezone: Annotated[str, Field(description="An IANA name, for example Europe/Berlin")] = "UTC",
) -> str:
    """The current date and time, in ISO 8601."""
    if timezone == "UTC":
        return datetime.now(UTC).isoformat(timespec="seconds")
    try:
        return datetime.now(ZoneInfo(timezone)).isoformat(timespec="seconds")
    except (OSError, ValueError, KeyError):
        raise ToolError(f"unknown time zone: {timezone}") from None


async def add(a: int | float, b: int | float) -> int | float:
    """The sum of two numbers."""
    return a + b


async def echo(text: str) -> str:
    """The text, unchanged."""
    return text


async def slow(
    seconds: Annotated[float, Field(ge=0, le=3600)],
    context: Context[Any, Any],
    steps: Annotated[int, Field(ge=1, le=1000)] = 10,
) -> str:
    """Take some seconds, and report progress after each of the steps."""
    for step in range(1, steps + 1):
        await asyncio.sleep(seconds / steps)
        await context.report_progress(step, steps, f"step {step} of {steps}")
    return f"took {seconds:g} seconds"


async def fail(message: str) -> str:
    """Fail with the message."""
    raise ToolError(message)


async def big(n: Annotated[int, Field(ge=0, le=64_000_000)]) -> str:
    """A text of n bytes."""
    line = "0123456789abcdef" * 4
    return (line * (n // len(line) + 1))[:n]


async def picture() -> Image:
    """A small picture, as PNG."""
    return Image(data=_gradient(64), format="png")


class Journal:
    """What the one unsafe tool leaves behind: its lines tell how often it really ran."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._lines: list[str] = []
        if file is not None and file.exists():
            self._lines = file.read_text().splitlines()

    async def append(self, text: str) -> int:
        """Append a line to the journal; answers how many lines it has now. Not repeatable."""
        line = " ".join(text.splitlines())
        self._lines.append(line)
        if self._file is not None:
            with open(self._file, "a", encoding="utf-8") as file:  # noqa: ASYNC230 - one line
                file.write(line + "\n")
        return len(self._lines)


def build(journal: Path | None = None) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer(
        "chatd-demo",
        title="chatd demo tools",
        instructions="Tools to try chatd with. Only `append` changes anything.",
        log_level="WARNING",
        request_state_security=STATE,
    )
    for tool in (current_time, echo, slow, fail, big, picture, ask, visit, confirm, talk):
        server.add_tool(tool, annotations=SAFE, structured_output=False)
    server.add_tool(add, annotations=SAFE)
    server.add_tool(Journal(journal).append, annotations=UNSAFE)
    return server


def older(app: ASGIApp) -> ASGIApp:
    """The server as it was before 2026-07-28: it asks people while the call is open."""

    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        named = dict(scope.get("headers", ())).get(MCP_PROTOCOL_VERSION_HEADER.encode(), b"")
        if named.decode("latin-1") in MODERN_PROTOCOL_VERSIONS:
            await Response(status_code=400)(scope, receive, send)
        else:
            await app(scope, receive, send)

    return refusing


def _gradient(size: int) -> bytes:
    """A square PNG, red from left to right and green from top to bottom."""
    shade = [value * 255 // (size - 1) for value in range(size)]
    # Each row of pixels begins with the number of its filter: none.
    rows = b"".join(b"\0" + b"".join(bytes((red, green, 128)) for red in shade) for green in shade)
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _png_chunk(b"IHDR", header)
        + _png_chunk(b"IDAT", zlib.compress(rows))
        + _png_chunk(b"IEND", b"")
    )


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m chatd.dev.demo_mcp", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--journal", type=Path, help="the file `append` writes to")
    parser.add_argument("--legacy", action="store_true", help="know only the older handshake")
    arguments = parser.parse_args()
    app: ASGIApp = build(arguments.journal).streamable_http_app(streamable_http_path="/mcp")
    serve(older(app) if arguments.legacy else app, port=arguments.port, path="/mcp")


if __name__ == "__main__":
    main()
