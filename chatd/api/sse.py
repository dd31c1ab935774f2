"""A flow as a response of server-sent events."""

import asyncio
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chatd.api.flow import Ending, Flow

HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}

GOODBYE_S = 1.0
"""For the end of the response; a reader that takes nothing does not take that either."""


class EventStream(Response):
    """Ends with its flow, or when the client hangs up."""

    media_type = "text/event-stream"

    def __init__(self, flow: Flow, status_code: int = 200) -> None:
        super().__init__(status_code=status_code, headers=HEADERS)
        del self.headers["content-length"]
        self._flow = flow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        more_to_come = True

        async def put(chunk: bytes, more: bool) -> None:
            nonlocal more_to_come
            more_to_come = more  # the last frames and the end of the body are one write
            await send({"type": "http.response.body", "body": chunk, "more_body": more})

        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            ending = await self._flow.run(put, _disconnected(receive))
            if more_to_come and ending is not Ending.HUNG_UP:
                with suppress(TimeoutError, OSError):
                    async with asyncio.timeout(GOODBYE_S):
                        await put(b"", False)
        finally:
            await self._flow.close()


async def _disconnected(receive: Receive) -> Ending:
    while (await receive())["type"] != "http.disconnect":
        pass
    return Ending.HUNG_UP


def wants_stream(accept: str | None) -> bool:
    """Whether the client asked for server-sent events."""
    return "text/event-stream" in (accept or "")
