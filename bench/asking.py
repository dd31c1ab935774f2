"""The small driver of our own: asks chatd or the model itself for a turn, and times its stream."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
import orjson

PLAIN = "/long 50 0"
"""A turn of 50 tokens without waits, as the scripted model understands it."""
NAME = "scripted"
API = "/api/experimental"
LIMIT_S = 120.0
PART = b"event: message_part"
FIRST = b"word1 "
"""The first token of `/long`; in a preview, or in the message that a late reader is given whole."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Timed:
    """One turn as its client saw it, in seconds since the request left."""

    first_s: float
    total_s: float
    turn: Json
    """As the stream announced it; empty for the model itself."""


Ask = Callable[[], Awaitable[Timed]]


@dataclass(frozen=True)
class Sample:
    turns: Sequence[Timed]
    wall_s: float

    @property
    def rate(self) -> float:
        return len(self.turns) / self.wall_s

    def first_ms(self, share: float = 0.5) -> float:
        return quantile([turn.first_s for turn in self.turns], share) * 1000


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def open_client(base_url: str, headers: Mapping[str, str] | None = None) -> httpx2.AsyncClient:
    """No limit to connections: how many turns are open is what is measured."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx2.AsyncClient(
        base_url=base_url, headers=headers, limits=limits, timeout=LIMIT_S, trust_env=False
    )


async def ask_model(
    client: httpx2.AsyncClient, text: str = PLAIN, history: Sequence[Json] = ()
) -> Timed:
    """The floor: the same model call, without chatd."""
    messages = [*history, {"role": "user", "content": text}]
    body = {"model": NAME, "messages": messages, "stream": True}
    began, first, read = time.perf_counter(), 0.0, b""
    async with client.stream("POST", "chat/completions", json=body) as answer:
        answer.raise_for_status()
        async for chunk in answer.aiter_raw():
            read += chunk
            if not first and FIRST in read:
                first = time.perf_counter() - began
    return Timed(_seen(first), time.perf_counter() - began, {})


async def ask_chatd(
    client: httpx2.AsyncClient, config: str, text: str = PLAIN, chat: str | None = None
) -> Timed:
    """A turn in a new chat, or in this one, streamed by the request that posts it."""
    path = f"{API}/chats" if chat is None else f"{API}/chats/{chat}/messages"
    body = {"content": [{"type": "text", "text": text}], "model_config_id": config}
    began, first, read = time.perf_counter(), 0.0, b""
    async with client.stream(
        "POST", path, json=body, headers={"Accept": "text/event-stream"}
    ) as answer:
        answer.raise_for_status()
        async for chunk in answer.aiter_raw():
            read += chunk
            if not first and FIRST in read:
                first = time.perf_counter() - began
    total = time.perf_counter() - began
    data = next(line for line in read.splitlines() if line.startswith(b"data: "))
    return Timed(_seen(first), total, orjson.loads(data[6:])["turn"])


async def repeat(ask: Ask, *, at_once: int = 1, turns: int) -> Sample:
    """So many turns in a closed loop of `at_once` askers."""
    left = turns
    done: list[Timed] = []

    async def asker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            done.append(await ask())

    began = time.perf_counter()
    await asyncio.gather(*(asker() for _ in range(at_once)))
    return Sample(done, time.perf_counter() - began)


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; floats with three figures or so."""
    lines = [f"\n### {title}", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(map(_figure, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _figure(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return (
        f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    )


def _seen(first: float) -> float:
    if not first:
        raise RuntimeError("a turn ended without a token")
    return first
