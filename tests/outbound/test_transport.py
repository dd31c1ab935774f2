"""Bodies, kept connections and early ends, the same for every transport of ours."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import httpx2
import pytest

from tests.outbound.conftest import MakeTransport
from tests.outbound.raw_server import Exchange, serving

SHORT = httpx2.Timeout(0.2, pool=None)
PATIENT = httpx2.Timeout(10.0, pool=None)


def client(transport: httpx2.AsyncBaseTransport) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=transport, timeout=PATIENT, trust_env=False)


async def echo(exchange: Exchange) -> None:
    await exchange.answer(exchange.body)


# Bodies


async def test_a_request_arrives_whole_and_its_answer_too(make_transport: MakeTransport) -> None:
    async with serving(echo) as server:
        response = await client(make_transport()).post(
            f"{server.url}/a%20b?c=d", content=b"x" * 100_000, headers={"X-One": "1"}
        )
    exchange = server.exchanges[0]
    assert response.content == b"x" * 100_000
    assert (exchange.method, exchange.path) == ("POST", "/a%20b?c=d")
    assert exchange.headers["host"] == f"localhost:{server.port}"
    assert exchange.headers["x-one"] == "1"
    assert response.http_version == "HTTP/1.1"


async def test_a_body_without_known_length_is_sent_in_chunks(make_transport: MakeTransport) -> None:
    async def body() -> AsyncGenerator[bytes]:
        for piece in (b"one ", b"", b"two"):
            yield piece

    async with serving(echo) as server:
        response = await client(make_transport()).post(server.url, content=body())
    assert response.content == b"one two"


async def test_chunks_arrive_while_the_answer_goes_on(make_transport: MakeTransport) -> None:
    seen = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.chunk(b"first")
        await seen.wait()
        await exchange.chunk(b"second")
        await exchange.end()

    async with (
        serving(answer) as server,
        client(make_transport()).stream("GET", server.url) as response,
    ):
        chunks = response.aiter_raw()
        assert await anext(chunks) == b"first"
        seen.set()
        assert [chunk async for chunk in chunks] == [b"second"]


async def test_an_answer_may_end_with_its_connection(make_transport: MakeTransport) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\n\r\n", b"until ", b"the end")
        exchange.writer.close()

    async with serving(answer) as server:
        http = client(make_transport())
        assert (await http.get(server.url)).content == b"until the end"
        assert (await http.get(server.url)).content == b"until the end"
    assert server.connections == 2


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_an_answer_without_a_body_ends_at_its_headers(
    make_transport: MakeTransport, method: str, status: int
) -> None:
    async def answer(exchange: Exchange) -> None:
        length = "content-length: 5\r\n" if status != 204 else ""
        await exchange.send(f"HTTP/1.1 {status} X\r\n{length}\r\n".encode())

    async with serving(answer) as server:
        http = client(make_transport())
        for _ in range(2):
            response = await http.request(method, server.url)
            assert (response.status_code, response.content) == (status, b"")
    assert server.connections == 1


async def test_interim_answers_are_skipped(make_transport: MakeTransport) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
        )
        await exchange.answer(b"final", headers="x-a: 1\r\nx-a: 2\r\n")

    async with serving(answer) as server:
        response = await client(make_transport()).get(server.url)
    assert (response.status_code, response.content) == (200, b"final")
    assert response.headers.get_list("x-a") == ["1", "2"]
    assert "link" not in response.headers


# Connections


async def test_a_connection_is_used_again(make_transport: MakeTransport) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.chunk(exchange.path.encode())
        await exchange.end()

    async with serving(answer) as server:
        http = client(make_transport())
        for path in ("/1", "/2", "/3"):
            assert (await http.get(f"{server.url}{path}")).text == path
    assert server.connections == 1


async def test_a_connection_the_server_wants_closed_is_not(make_transport: MakeTransport) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"ok", headers="connection: close\r\n")

    async with serving(answer) as server:
        http = client(make_transport())
        await http.get(server.url)
        await http.get(server.url)
    assert server.connections == 2


async def test_a_connection_the_server_closed_while_idle_is_not(
    make_transport: MakeTransport,
) -> None:
    closed = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"ok")
        exchange.writer.close()
        await exchange.writer.wait_closed()
        closed.set()

    async with serving(answer) as server:
        http = client(make_transport())
        await http.post(server.url, content=b"1")
        await closed.wait()
        await http.post(server.url, content=b"2")
    assert [exchange.body for exchange in server.exchanges] == [b"1", b"2"]
    assert server.connections == 2


async def test_a_connection_idle_for_too_long_is_not(make_transport: MakeTransport) -> None:
    async with serving(echo) as server:
        http = client(make_transport(keepalive=0.0))
        await http.get(server.url)
        await http.get(server.url)
    assert server.connections == 2


async def test_many_requests_at_once_get_their_own_answers(make_transport: MakeTransport) -> None:
    everyone = asyncio.Barrier(60)

    async def answer(exchange: Exchange) -> None:
        await everyone.wait()
        await exchange.answer(exchange.path.encode())

    async with serving(answer) as server:
        http = client(make_transport())
        paths = [f"/{number}" for number in range(60)]
        answers = await asyncio.gather(*(http.get(server.url + path) for path in paths))
    assert [answer.text for answer in answers] == paths


async def test_closing_the_transport_closes_idle_connections(make_transport: MakeTransport) -> None:
    ended = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"ok")
        await exchange.until_closed()
        ended.set()

    async with serving(answer) as server:
        transport = make_transport()
        await client(transport).get(server.url)
        await transport.aclose()
        await ended.wait()


# Stopping early


@pytest.mark.parametrize("how", ["aclose", "cancel"])
async def test_leaving_in_the_middle_closes_the_connection(
    make_transport: MakeTransport, how: str
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.chunk(b"first")
        await exchange.until_closed()
        ended.set()

    async def read(http: httpx2.AsyncClient, url: str) -> None:
        async with http.stream("GET", url) as response, aclosing(response.aiter_raw()) as chunks:
            async for _ in chunks:
                begun.set()
                if how == "aclose":
                    return

    async with serving(answer) as server:
        http = client(make_transport())
        reading = asyncio.create_task(read(http, server.url))
        await begun.wait()
        if how == "cancel":
            reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        await ended.wait()


async def test_a_cancelled_wait_for_headers_closes_the_connection(
    make_transport: MakeTransport,
) -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        asked.set()
        await exchange.until_closed()
        ended.set()

    async with serving(answer) as server:
        asking = asyncio.create_task(client(make_transport()).get(server.url))
        await asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await ended.wait()


async def test_a_reader_that_pauses_pauses_the_server(make_transport: MakeTransport) -> None:
    blocked = asyncio.Event()
    piece, count = b"x" * 65536, 1024

    async def answer(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (len(piece) * count))
        for _ in range(count):
            exchange.writer.write(piece)
            try:
                async with asyncio.timeout(0.2):
                    await exchange.writer.drain()
            except TimeoutError:
                blocked.set()
                await exchange.writer.drain()

    async with (
        serving(answer) as server,
        client(make_transport()).stream("GET", server.url) as response,
    ):
        await blocked.wait()
        total = 0
        async for chunk in response.aiter_raw():
            total += len(chunk)
    assert total == len(piece) * count
