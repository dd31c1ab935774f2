"""What every transport of ours makes of servers that fail, hang or send too much."""

import socket

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


# Failures


@pytest.mark.parametrize(
    "half",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nhalf",
    ],
)
async def test_an_answer_cut_short_is_an_error(make_transport: MakeTransport, half: bytes) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(half)
        exchange.writer.close()

    async with (
        serving(answer) as server,
        client(make_transport()).stream("GET", server.url) as response,
    ):
        chunks = response.aiter_raw()
        assert await anext(chunks) == b"half"
        with pytest.raises(httpx2.RemoteProtocolError):
            await anext(chunks)
    assert len(server.exchanges) == 1


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 20",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x-big: " + b"y" * 200_000 + b"\r\n\r\n",
    ],
    ids=["nothing", "half a line", "not HTTP", "no length", "no chunk", "too large"],
)
async def test_a_broken_answer_is_an_error_and_nothing_is_sent_twice(
    make_transport: MakeTransport, said: bytes
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(said)
        exchange.writer.close()

    async with serving(answer) as server:
        with pytest.raises(httpx2.RemoteProtocolError):
            await client(make_transport()).post(server.url, content=b"once")
    assert len(server.exchanges) == 1


async def test_a_reset_connection_is_a_network_error(make_transport: MakeTransport) -> None:
    async def answer(exchange: Exchange) -> None:
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        exchange.writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        exchange.writer.transport.abort()

    async with serving(answer) as server:
        with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError)):
            await client(make_transport()).get(server.url)


async def test_a_reused_connection_that_dies_is_an_error_and_nothing_is_sent_twice(
    make_transport: MakeTransport,
) -> None:
    async def answer(exchange: Exchange) -> None:
        if exchange.body == b"2":
            exchange.writer.close()
        else:
            await exchange.answer(b"ok")

    async with serving(answer) as server:
        http = client(make_transport())
        await http.post(server.url, content=b"1")
        with pytest.raises(httpx2.RemoteProtocolError):
            await http.post(server.url, content=b"2")
    assert [exchange.body for exchange in server.exchanges] == [b"1", b"2"]


async def test_silence_before_the_headers_is_a_read_timeout(make_transport: MakeTransport) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.until_closed()

    async with serving(answer) as server:
        with pytest.raises(httpx2.ReadTimeout):
            await client(make_transport()).get(server.url, timeout=SHORT)


async def test_silence_inside_the_body_is_a_read_timeout(make_transport: MakeTransport) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.chunk(b"first")
        await exchange.until_closed()

    async with serving(answer) as server:
        http = client(make_transport())
        async with http.stream("GET", server.url, timeout=SHORT) as response:
            chunks = response.aiter_raw()
            assert await anext(chunks) == b"first"
            with pytest.raises(httpx2.ReadTimeout):
                await anext(chunks)


async def test_a_server_that_does_not_read_is_a_write_timeout(
    make_transport: MakeTransport,
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(httpx2.WriteTimeout):
            await client(make_transport()).post(url, content=b"x" * 50_000_000, timeout=SHORT)


async def test_a_server_that_does_not_accept_is_a_connect_timeout(
    make_transport: MakeTransport,
) -> None:
    listener = socket.socket()
    waiting = [socket.socket() for _ in range(4)]
    with listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for other in waiting:
            other.setblocking(False)
            other.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(httpx2.ConnectTimeout):
            await client(make_transport()).get(url, timeout=SHORT)
    for other in waiting:
        other.close()


async def test_a_refused_connection_is_a_connect_error(make_transport: MakeTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(httpx2.ConnectError):
        await client(make_transport()).get(f"http://127.0.0.1:{port}/")


# Limits


async def test_an_answer_over_the_limit_is_an_error(make_transport: MakeTransport) -> None:
    async def answer(exchange: Exchange) -> None:
        if exchange.path == "/announced":
            await exchange.answer(b"x" * 1001)
        else:
            await exchange.begin("content-type: application/json\r\n")
            await exchange.chunk(b"x" * 600)
            await exchange.chunk(b"x" * 600)
            await exchange.end()

    async with serving(answer) as server:
        http = client(make_transport(limit=1000))
        for path in ("/announced", "/streamed"):
            with pytest.raises(httpx2.RemoteProtocolError, match="larger than 1000 bytes"):
                await http.get(server.url + path)


async def test_an_event_stream_has_no_limit(make_transport: MakeTransport) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"x" * 5000, headers="content-type: text/event-stream; a=b\r\n")

    async with serving(answer) as server:
        response = await client(make_transport(limit=1000)).get(server.url)
    assert len(response.content) == 5000


async def test_a_compressed_answer_cannot_slip_under_the_limit(
    make_transport: MakeTransport,
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"x", headers="content-encoding: gzip\r\n")

    async with serving(answer) as server:
        with pytest.raises(httpx2.RemoteProtocolError, match="compressed"):
            await client(make_transport(limit=1000)).get(server.url)
