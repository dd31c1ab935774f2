"""A model on loopback that answers each request as the test says, and remembers what was asked."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.llm.provider import STOP, call, chunk, events, failing, streaming, text
from tests.outbound.raw_server import Answer, Exchange, serving

TOO_LONG = failing(400, {"error": {"message": "too long", "code": "context_length_exceeded"}})
REFUSED = failing(400, {"error": {"message": "no such thing"}})


async def silent(exchange: Exchange) -> None:
    """Never answers."""
    await exchange.until_closed()


def says(words: str, entered: int = 100) -> Answer:
    """Text, and how many tokens the request had."""
    return streaming(events(*([text(words)] if words else []), STOP, _usage(entered)))


def calls(name: str, entered: int = 100, **arguments: Any) -> Answer:
    """A call of one tool of the demo server."""
    function = {"name": f"demo__{name}", "arguments": json.dumps(arguments)}
    made = call(index=0, id=f"c{entered}", type="function", function=function)
    return streaming(events(made, chunk(finish="tool_calls"), _usage(entered)))


def _usage(entered: int) -> dict[str, Any]:
    tokens = {"prompt_tokens": entered, "completion_tokens": 10, "total_tokens": entered + 10}
    return {**chunk(), "choices": [], "usage": tokens}


@dataclass
class Replies:
    """`queue` is what is answered next; a request too many is refused."""

    url: str = ""
    queue: list[Answer] = field(default_factory=list[Answer])
    asked: list[Any] = field(default_factory=list[Any])

    async def answer(self, exchange: Exchange) -> None:
        self.asked.append(json.loads(exchange.body))
        await (self.queue.pop(0) if self.queue else REFUSED)(exchange)

    def said(self, request: int) -> list[tuple[str, str]]:
        """Role and text of a request's messages behind the instructions."""
        return [
            (message["role"], message["content"] or "")
            for message in self.asked[request]["messages"]
            if message["role"] != "system"
        ]


@asynccontextmanager
async def replying() -> AsyncGenerator[Replies]:
    replies = Replies()
    async with serving(replies.answer) as server:
        replies.url = f"http://127.0.0.1:{server.port}/v1"
        yield replies
