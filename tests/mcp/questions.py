"""A user who answers, servers that ask, and the demo server in each of its ways to speak."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Literal

from chatd.core.asking import ElicitAnswer, Elicitation
from chatd.core.servers import McpServer
from chatd.dev.demo_mcp import build, older
from tests.mcp.peer import Peer, Say, event, running_app, server_at
from tests.outbound.raw_server import Exchange

Way = Literal["modern", "legacy", "sse"]

FORM: dict[str, Any] = {
    "message": "Who are you?",
    "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
}


class Person:
    """Gives the same answer each time, or, without one, never answers."""

    def __init__(self, answer: ElicitAnswer | None = None, *, after_s: float = 0) -> None:
        self.asked: list[Elicitation] = []
        self.left = asyncio.Event()
        self.reading = asyncio.Event()
        self._answer = answer
        self._after_s = after_s

    async def __call__(self, question: Elicitation) -> ElicitAnswer:
        self.asked.append(question)
        self.reading.set()
        try:
            await asyncio.sleep(self._after_s)
            if self._answer is None:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.left.set()
            raise
        assert self._answer is not None
        return self._answer


def named(name: str) -> ElicitAnswer:
    return ElicitAnswer("accept", {"name": name})


def asking(peer: Peer, params: dict[str, Any], method: str = "elicitation/create") -> Say:
    """Asks in the stream of the call, and answers the call with what it was told."""

    async def say(exchange: Exchange, message: dict[str, Any]) -> None:
        mine = f"question-{message['id']}"
        await exchange.begin()
        await exchange.chunk(event({"id": mine, "method": method, "params": params}))
        told = await peer.reply(mine)
        text = str(told.get("result") or told["error"]["code"])
        await exchange.chunk(event({"id": message["id"], "result": texts(text)}))
        await exchange.end()

    return say


def texts(*lines: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": line} for line in lines]}


@asynccontextmanager
async def demo(way: Way) -> AsyncGenerator[McpServer]:
    made = build()
    if way == "sse":
        async with running_app(made.sse_app()) as origin:
            yield server_at(f"{origin}/sse", transport="sse")
        return
    app = made.streamable_http_app()
    async with running_app(older(app) if way == "legacy" else app) as origin:
        yield server_at(f"{origin}/mcp")
