"""One call to a real server: what is sent, what comes back, and who hangs up."""

import asyncio
import json
from contextlib import aclosing, suppress

import pytest

from chatd.core.deltas import Finished, TextDelta
from chatd.core.tools import OfferedTool
from chatd.llm.clients import ModelClients
from chatd.llm.failures import NoModelApi, StreamEnded, StreamSilent
from chatd.llm.stream import complete
from tests.llm.provider import (
    DONE,
    KEY,
    STOP,
    asked,
    chunk,
    event,
    events,
    finished,
    model,
    said,
    streaming,
    text,
)
from tests.outbound.raw_server import Exchange, serving


async def test_a_call_is_one_request_with_key_and_body(clients: ModelClients) -> None:
    tool = OfferedTool("t", "t", "d", {"type": "object"})
    async with serving(streaming(events(text("hi"), STOP))) as server:
        called = model(f"{server.url}/v1")
        messages = [{"role": "user", "content": "höllo"}]
        async with aclosing(
            complete(clients.client(called), called, messages, (tool,), tool_choice="none")
        ) as source:
            deltas = [delta async for each in source for delta in each]
    assert deltas == [TextDelta("hi"), Finished("stop", None, "chatcmpl-1")]
    (exchange,) = server.exchanges
    assert (exchange.method, exchange.path) == ("POST", "/v1/chat/completions")
    assert exchange.headers["authorization"] == f"Bearer {KEY}"
    assert exchange.headers["content-type"] == "application/json"
    body = json.loads(exchange.body)
    assert body["messages"] == messages
    assert body["stream"] is True
    assert body["tools"][0]["function"]["name"] == "t"


async def test_deltas_arrive_while_the_model_speaks(clients: ModelClients) -> None:
    heard = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.chunk(event(text("first")))
        await heard.wait()
        await exchange.chunk(event(text("second")) + event(STOP) + DONE)
        await exchange.end()

    async with serving(answer) as server:
        called = model(server.url)
        async with aclosing(complete(clients.client(called), called, [], ())) as source:
            assert await anext(source) == [TextDelta("first")]
            heard.set()
            assert await anext(source) == [TextDelta("second")]


async def test_the_connection_is_kept_for_the_next_call(clients: ModelClients) -> None:
    async with serving(streaming(events(text("hi"), STOP))) as server:
        called = model(server.url)
        for _ in range(3):
            await asked(clients.client(called), called)
    assert server.connections == 1


@pytest.mark.parametrize("how", ["aclose", "cancel"])
async def test_leaving_a_call_hangs_up(clients: ModelClients, how: str) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.chunk(event(text("first")))
        await exchange.until_closed()
        ended.set()

    async def listen(url: str) -> None:
        called = model(url)
        async with aclosing(complete(clients.client(called), called, [], ())) as source:
            async for _ in source:
                begun.set()
                if how == "aclose":
                    return

    async with serving(answer) as server:
        listening = asyncio.create_task(listen(server.url))
        await begun.wait()
        if how == "cancel":
            listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening
        await ended.wait()


async def test_a_server_that_ignores_streaming_still_answers(clients: ModelClients) -> None:
    body = {"id": "x", "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}

    async def answer(exchange: Exchange) -> None:
        content = json.dumps(body, indent=2).encode()
        await exchange.answer(content, headers="content-type: application/json; charset=utf-8\r\n")

    async with serving(answer) as server:
        called = model(server.url)
        deltas = await asked(clients.client(called), called)
    assert said(deltas) == "hi"
    assert finished(deltas).response_id == "x"


async def test_a_web_page_is_no_model(clients: ModelClients) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"<html>", headers="content-type: text/html\r\n")

    async with serving(answer) as server:
        called = model(server.url)
        with pytest.raises(NoModelApi):
            await asked(clients.client(called), called)


async def test_a_stream_without_an_end_is_an_error(clients: ModelClients) -> None:
    async with serving(streaming(event(text("half")))) as server:
        called = model(server.url)
        with pytest.raises(StreamEnded):
            await asked(clients.client(called), called)


async def test_comments_do_not_keep_a_silent_stream_alive(clients: ModelClients) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.chunk(event(text("first")))
        with suppress(ConnectionError):
            while True:
                await exchange.chunk(b": still here\n\n")

    async with serving(answer) as server:
        called = model(server.url)
        with pytest.raises(StreamSilent):
            await asked(clients.client(called), called, silence_s=0.2)


async def test_a_stream_that_goes_on_after_its_last_chunk_is_complete(
    clients: ModelClients,
) -> None:
    ended = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.chunk(event(text("all")) + event(STOP))
        await exchange.until_closed()
        ended.set()

    async with serving(answer) as server:
        called = model(server.url)
        deltas = await asked(clients.client(called), called, tail_s=0.1)
        await ended.wait()
    assert said(deltas) == "all"
    assert finished(deltas).usage is None


async def test_usage_that_comes_after_the_last_chunk_counts(clients: ModelClients) -> None:
    usage = chunk(choices=[], usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3})
    async with serving(streaming(event(text("x")), event(STOP), event(usage), DONE)) as server:
        called = model(server.url)
        last = finished(await asked(clients.client(called), called))
    assert last.usage is not None
    assert last.usage["total_tokens"] == 3
