"""A failed call is tried again when that can help, and never when it is not ours any more."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from chatd.core.deltas import Retrying, TextDelta
from chatd.core.errors import LeaseLost, TurnFailed
from chatd.llm.clients import ModelClients
from chatd.llm.retry import complete_with_retries
from tests.llm.provider import (
    KEY,
    STOP,
    collect,
    event,
    events,
    failing,
    finished,
    model,
    retries,
    said,
    streaming,
    text,
)
from tests.outbound.raw_server import Answer, Exchange, serving

GOOD = streaming(events(text("good"), STOP))


class Clock:
    """Remembers how long it was asked to sleep, and does not."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def in_turn(*answers: Answer) -> Answer:
    """Each request gets the next answer, then the last one for ever."""
    left = list(answers)

    async def answer(exchange: Exchange) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(exchange)

    return answer


async def tried(clients: ModelClients, url: str, clock: Clock, **options: Any) -> list[Any]:
    called = model(url)
    client = clients.client(called)
    return await collect(
        complete_with_retries(client, called, [], (), sleep=clock.sleep, **options)
    )


async def test_a_failed_attempt_is_announced_before_the_next(clients: ModelClients) -> None:
    clock = Clock()
    half = streaming(event(text("half")))
    async with serving(in_turn(half, failing(500, {}), GOOD)) as server:
        deltas = await tried(clients, server.url, clock)
    assert isinstance(deltas[0], TextDelta)
    first, second = retries(deltas)
    assert (first.attempt, first.delay_ms, first.error["kind"]) == (1, 1000, "timeout")
    assert (second.attempt, second.delay_ms, second.error["status_code"]) == (2, 2000, 500)
    assert said(deltas[deltas.index(second) :]) == "good"
    assert finished(deltas).reason == "stop"
    assert clock.slept == [1, 2]


async def test_the_delay_doubles_up_to_a_minute_and_attempts_end(clients: ModelClients) -> None:
    clock = Clock()
    async with serving(failing(503, {})) as server:
        with pytest.raises(TurnFailed) as failed:
            await tried(clients, server.url, clock)
    assert clock.slept == [1, 2, 4, 8, 16, 32, *[60] * 18]
    assert len(server.exchanges) == 25
    assert failed.value.error["kind"] == "timeout"


async def test_retry_after_is_a_minimum_with_a_limit(clients: ModelClients) -> None:
    clock = Clock()
    waits = ("retry-after: 7\r\n", "retry-after: 0\r\n", "retry-after: 86400\r\n")
    limited = [failing(429, {}, wait) for wait in waits]
    async with serving(in_turn(*limited, GOOD)) as server:
        deltas = await tried(clients, server.url, clock)
    assert clock.slept == [7, 2, 600]
    assert [retry.delay_ms for retry in retries(deltas)] == [7000, 2000, 600_000]


async def test_what_cannot_help_is_not_tried_again(clients: ModelClients) -> None:
    clock = Clock()
    refused = {"error": {"message": f"Incorrect API key provided: {KEY}"}}
    async with serving(failing(401, refused)) as server:
        with pytest.raises(TurnFailed) as failed:
            await tried(clients, server.url, clock)
    assert failed.value.error["kind"] == "auth"
    assert KEY not in repr(failed.value.error)
    assert failed.value.__cause__ is None
    assert clock.slept == []
    assert len(server.exchanges) == 1


async def test_each_further_attempt_asks_whose_the_turn_is(clients: ModelClients) -> None:
    owned = [True, False]

    async def still_mine() -> bool:
        return owned.pop(0)

    async with serving(failing(503, {})) as server:
        with pytest.raises(LeaseLost):
            await tried(clients, server.url, Clock(), still_mine=still_mine)
    assert len(server.exchanges) == 2


async def test_a_retry_can_be_cancelled_while_it_waits(clients: ModelClients) -> None:
    waiting = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    async def call(url: str) -> None:
        called = model(url)
        source = complete_with_retries(clients.client(called), called, [], (), sleep=sleep)
        await collect(source)

    async with serving(failing(503, {})) as server:
        calling = asyncio.create_task(call(server.url))
        await waiting.wait()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling


async def test_closing_in_the_middle_hangs_up(clients: ModelClients) -> None:
    ended = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.chunk(event(text("first")))
        await exchange.until_closed()
        ended.set()

    async with serving(answer) as server:
        called = model(server.url)
        client = clients.client(called)
        async with aclosing(complete_with_retries(client, called, [], ())) as source:
            assert await anext(source) == [TextDelta("first")]
        await ended.wait()


async def test_a_retry_comes_alone(clients: ModelClients) -> None:
    clock = Clock()
    async with serving(in_turn(streaming(event(text("half"))), GOOD)) as server:
        called = model(server.url)
        source = complete_with_retries(clients.client(called), called, [], (), sleep=clock.sleep)
        async with aclosing(source):
            lists = [deltas async for deltas in source]
    (announced,) = [deltas for deltas in lists if any(isinstance(d, Retrying) for d in deltas)]
    assert len(announced) == 1
