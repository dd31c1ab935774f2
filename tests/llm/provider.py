"""A model provider on loopback, and the pieces its answers are made of."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import count
from typing import Any
from uuid import UUID

from pydantic import SecretStr

from chatd.core.deltas import Delta, Finished, ReasoningDelta, Retrying, TextDelta, ToolCallDelta
from chatd.core.models import Model, ModelOptions
from chatd.llm.answer import Answer as ParsedAnswer
from chatd.llm.clients import ModelClient
from chatd.llm.stream import complete
from tests.outbound.raw_server import Answer, Exchange

KEY = "sk-test-1234567890abcdef"


def model(
    url: str | None,
    *,
    provider: str = "openai-compat",
    key: str | None = KEY,
    options: ModelOptions | None = None,
) -> Model:
    return Model(
        config_id=UUID(int=1),
        provider_id=UUID(int=2),
        provider=provider,
        name="test-model",
        base_url=url,
        api_key=SecretStr(key) if key is not None else None,
        context_limit=8000,
        options=options or ModelOptions(),
    )


def chunk(
    delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any
) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}],
        **more,
    }


def text(content: str) -> dict[str, Any]:
    return chunk({"content": content})


def call(**entry: Any) -> dict[str, Any]:
    return chunk({"tool_calls": [entry]})


STOP = chunk(finish="stop")


def event(frame: dict[str, Any] | str, newline: str = "\n") -> bytes:
    data = frame if isinstance(frame, str) else json.dumps(frame)
    return f"data: {data}{newline}{newline}".encode()


DONE = event("[DONE]")


def events(*frames: dict[str, Any]) -> bytes:
    return b"".join(map(event, frames)) + DONE


def streaming(*reads: bytes) -> Answer:
    """Answers each read in a chunk of its own."""

    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        for read in reads:
            await exchange.chunk(read)
        await exchange.end()

    return answer


def failing(status: int, body: Any, headers: str = "") -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(
            content, status=status, headers=f"content-type: application/json\r\n{headers}"
        )

    return answer


async def collect(source: AsyncGenerator[list[Delta]]) -> list[Delta]:
    async with aclosing(source):
        return [delta async for deltas in source for delta in deltas]


async def asked(client: ModelClient, called: Model, **options: Any) -> list[Delta]:
    messages = [{"role": "user", "content": "hello"}]
    return await collect(complete(client, called, messages, (), **options))


def said(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


def thought(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, ReasoningDelta))


def calls(deltas: Sequence[Delta]) -> list[tuple[str, str, str]]:
    """Id, name and arguments of each call, put together as the loop does."""
    made: dict[int, tuple[str, str, str]] = {}
    for delta in deltas:
        if isinstance(delta, ToolCallDelta):
            known = made.get(delta.index, ("", "", ""))
            made[delta.index] = (
                known[0] + delta.id,
                known[1] + delta.name,
                known[2] + delta.arguments,
            )
    assert sorted(made) == list(range(len(made)))
    return [made[index] for index in sorted(made)]


def finished(deltas: Sequence[Delta]) -> Finished:
    last = deltas[-1]
    assert isinstance(last, Finished)
    return last


def retries(deltas: Sequence[Delta]) -> list[Retrying]:
    return [delta for delta in deltas if isinstance(delta, Retrying)]


def answer() -> ParsedAnswer:
    numbers = count(1)
    return ParsedAnswer(lambda: f"made-{next(numbers)}")


def read(*reads: bytes) -> list[Delta]:
    parsed = answer()
    deltas: list[Delta] = []
    for piece in reads:
        deltas += parsed.feed(piece) or []
    return deltas + parsed.end()
