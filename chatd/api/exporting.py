"""A long answer of lines to whoever may read it: one at a time, and to no reader who is away."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Send

from chatd import logs
from chatd.api.answers import TOO_MANY
from chatd.api.permits import Permit

LINES = "application/x-ndjson"

BUSY: dict[int | str, dict[str, Any]] = {
    429: {**TOO_MANY[429], "description": "You have an export under way."}
}

PIECE_BYTES = 2**16
"""What is sent at once: a reader of a long line is slow only when they take none of it."""

log = logs.get(__name__)


class Export(StreamingResponse):
    """Ends the permit with itself. One that is broken off has no end of the body."""

    def __init__(
        self, permit: Permit, lines: AsyncGenerator[bytes], filename: str, send_timeout_s: float
    ) -> None:
        disposition = f'attachment; filename="{filename}"'
        headers = {"Content-Disposition": disposition, "Cache-Control": "no-store"}
        super().__init__(lines, media_type=LINES, headers=headers)
        self._permit = permit
        self._lines = lines
        self._send_timeout_s = send_timeout_s

    async def stream_response(self, send: Send) -> None:
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            async with aclosing(self._lines):
                async for lines in self._lines:
                    if not await self._send(send, lines):
                        return
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._permit.end()

    async def _send(self, send: Send, lines: bytes) -> bool:
        """False for who may not go on, or takes nothing for too long."""
        for start in range(0, len(lines), PIECE_BYTES):
            if self._permit.revoked:
                return False
            piece = lines[start : start + PIECE_BYTES]
            try:
                async with asyncio.timeout(self._send_timeout_s):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except TimeoutError:
                log.info("slow reader of an export dropped")
                return False
        return not self._permit.revoked
