"""What only our own transport does, or could get wrong."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import httpx2
import pytest

from chatd.outbound.connection import MAX_OVERHEAD
from chatd.outbound.streaming import StreamingTransport
from tests.outbound.conftest import LOOPBACK, Authority
from tests.outbound.raw_server import Exchange, serving


@pytest.fixture
async def http(authority: Authority) -> AsyncGenerator[httpx2.AsyncClient]:
    transport = StreamingTransport(LOOPBACK, authority.trusted)
    timeout = httpx2.Timeout(10.0, pool=None)
    async with httpx2.AsyncClient(transport=transport, timeout=timeout, trust_env=False) as client:
        yield client


async def echo(exchange: Exchange) -> None:
    await exchange.answer(exchange.body)


@pytest.mark.parametrize(
    "extra", [b"x", b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", b"HTTP/1.1 200 OK\r\n"]
)
async def test_bytes_nobody_asked_for_are_never_an_answer(
    http: httpx2.AsyncClient, extra: bytes
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" + extra)

    async with serving(answer) as server:
        for _ in range(2):
            assert (await http.get(server.url)).text == "ok"
    assert server.connections == 2


async def test_bytes_that_come_while_idle_close_the_connection(http: httpx2.AsyncClient) -> None:
    ended = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"ok")
        await exchange.send(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
        await exchange.until_closed()
        ended.set()

    async with serving(answer) as server:
        assert (await http.get(server.url)).text == "ok"
        await ended.wait()


async def test_an_idle_connection_is_closed_in_time_without_another_request(
    authority: Authority,
) -> None:
    ended = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"ok")
        await exchange.until_closed()
        ended.set()

    async with serving(answer) as server:
        transport = StreamingTransport(LOOPBACK, authority.trusted, keepalive=0.05)
        async with httpx2.AsyncClient(transport=transport) as client:
            await client.get(server.url)
            await ended.wait()


async def test_an_answer_left_unread_does_not_stop_the_next_one(http: httpx2.AsyncClient) -> None:
    size = 400_000

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"x" * size)

    async with serving(answer) as server:
        async with (
            http.stream("GET", server.url) as response,
            aclosing(response.aiter_raw()) as chunks,
        ):
            await anext(chunks)
        for _ in range(2):
            assert len((await http.get(server.url)).content) == size


async def test_an_answer_that_is_whole_keeps_its_connection_though_nobody_reads_it(
    http: httpx2.AsyncClient,
) -> None:
    async with serving(echo) as server:
        for _ in range(3):
            async with http.stream("POST", server.url, content=b"whole") as response:
                assert response.status_code == 200
    assert server.connections == 1


async def test_an_answer_may_come_before_the_request_is_sent(http: httpx2.AsyncClient) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.answer(b"big", status=413)
        await exchange.until_closed()
        exchange.writer.close()

    async with serving(refuse, bodies=False) as server:
        response = await http.post(server.url, content=b"x" * 50_000_000)
    assert (response.status_code, response.text) == (413, "big")


async def test_a_server_that_closes_at_once_is_an_error(http: httpx2.AsyncClient) -> None:
    async def close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        for _ in range(20):
            with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
                await http.post(f"http://127.0.0.1:{port}/", content=b"x")


@pytest.mark.parametrize(
    "flood",
    [
        b"HTTP/1.1 103 Early Hints\r\nlink: " + b"x" * 1000 + b"\r\n\r\n",
        b"x-header: " + b"y" * 1000 + b"\r\n",
    ],
    ids=["interim", "headers"],
)
async def test_headers_without_end_are_refused(http: httpx2.AsyncClient, flood: bytes) -> None:
    async def answer(exchange: Exchange) -> None:
        if not flood.startswith(b"HTTP"):
            await exchange.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await exchange.send(flood)

    async with serving(answer) as server:
        with pytest.raises(httpx2.RemoteProtocolError, match="too large"):
            await http.get(server.url)


async def test_large_headers_with_their_body_in_one_read_are_refused(
    http: httpx2.AsyncClient,
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"body", headers=f"x-big: {'y' * MAX_OVERHEAD}\r\n")

    async with serving(answer) as server:
        with pytest.raises(httpx2.RemoteProtocolError, match="too large"):
            await http.get(server.url)


async def test_trailers_are_read_over(http: httpx2.AsyncClient) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.chunk(b"body")
        await exchange.send(b"0\r\nx-checksum: 1\r\nset-cookie: a=b\r\n\r\n")

    async with serving(answer) as server:
        for _ in range(2):
            response = await http.get(server.url)
            assert response.text == "body"
            assert "set-cookie" not in response.headers
    assert server.connections == 1


async def test_a_switch_of_protocol_nobody_asked_for_is_an_error(http: httpx2.AsyncClient) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nhi"
        )

    async with serving(answer) as server:
        with pytest.raises(httpx2.RemoteProtocolError):
            await http.get(server.url)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x", b"a\r\ninjected: 1")],
        [(b"x", b"a\nb")],
        [(b"x", b"a\rb")],
        [(b"x", b"a\0b")],
        [(b"x y", b"a")],
        [(b"x\r\ninjected", b"a")],
        [(b"x:", b"a")],
        [(b"", b"a")],
        [(b"content-length", b"2")],
        [(b"content-length", b"9")],
    ],
)
async def test_a_request_that_would_be_read_as_something_else_is_not_sent(
    headers: list[tuple[bytes, bytes]], authority: Authority
) -> None:
    transport = StreamingTransport(LOOPBACK, authority.trusted)
    async with serving(echo) as server:
        request = httpx2.Request("POST", server.url, content=b"body")
        for name, value in headers:
            raw = [pair for pair in request.headers.raw if pair[0].lower() != name]
            request.headers = httpx2.Headers([*raw, (name, value)])
        with pytest.raises(httpx2.LocalProtocolError):
            await transport.handle_async_request(request)
        assert server.exchanges == []
    await transport.aclose()
