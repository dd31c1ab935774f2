"""What every transport of ours does with real servers, good and bad."""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import httpx2
import pytest

from chatd.outbound.dial import BlockedAddress
from tests.outbound.conftest import Authority, MakeTransport
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


# Addresses and TLS


async def test_a_closed_address_is_not_dialled(make_transport: MakeTransport) -> None:
    async with serving(echo) as server:
        http = client(make_transport(allowed=()))
        for host in ("localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "127.1", "0"):
            with pytest.raises(BlockedAddress) as refused:
                await http.get(f"http://{host}:{server.port}/private?token=abc")
            assert "private" not in str(refused.value)
            assert "abc" not in str(refused.value)
    assert server.connections == 0


@pytest.mark.parametrize("url", ["http://user:pw@localhost/", "ftp://localhost/"])
async def test_a_url_out_of_rule_is_not_dialled(make_transport: MakeTransport, url: str) -> None:
    with pytest.raises(httpx2.TransportError) as refused:
        await make_transport().handle_async_request(httpx2.Request("GET", url))
    assert isinstance(refused.value, BlockedAddress)


async def test_the_certificate_is_checked_for_the_host_not_for_the_address(
    make_transport: MakeTransport, authority: Authority
) -> None:
    context = authority.server("localhost")
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    async with serving(echo, tls=context) as server:
        http = client(make_transport())
        response = await http.post(f"https://localhost:{server.port}/", content=b"secret")
        assert response.content == b"secret"
        with pytest.raises(httpx2.ConnectError, match="certificate"):
            await http.get(f"https://127.0.0.1:{server.port}/")
    assert names[0] == "localhost"
    assert server.exchanges[0].headers["host"] == f"localhost:{server.port}"


async def test_a_certificate_of_an_unknown_authority_is_refused(
    make_transport: MakeTransport, authority: Authority
) -> None:
    def nobody() -> ssl.SSLContext:
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    async with serving(echo, tls=authority.server("localhost")) as server:
        with pytest.raises(httpx2.ConnectError):
            await client(make_transport(tls=nobody)).get(server.url)


async def test_a_stream_over_tls_is_kept_alive_and_can_be_left(
    make_transport: MakeTransport, authority: Authority
) -> None:
    ended = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.chunk(b"x" * 200_000)
        if exchange.path == "/whole":
            await exchange.end()
        else:
            await exchange.until_closed()
            ended.set()

    async with serving(answer, tls=authority.server("localhost")) as server:
        http = client(make_transport())
        for _ in range(2):
            assert len((await http.get(f"{server.url}/whole")).content) == 200_000
        assert server.connections == 1
        async with (
            http.stream("GET", f"{server.url}/endless") as response,
            aclosing(response.aiter_raw()) as chunks,
        ):
            await anext(chunks)
        await ended.wait()


async def test_a_server_that_never_finishes_the_handshake_is_a_connect_timeout(
    make_transport: MakeTransport,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://localhost:{listener.getsockname()[1]}/"
        with pytest.raises(httpx2.ConnectTimeout):
            await client(make_transport()).get(url, timeout=SHORT)
