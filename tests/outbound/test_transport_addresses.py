"""Which addresses every transport of ours dials, and whom it believes there."""

import asyncio
import socket
import ssl
from contextlib import aclosing
from ipaddress import ip_address

import httpx2
import pytest

from chatd.outbound.dial import BlockedAddress
from chatd.outbound.guard import Address
from tests.outbound.conftest import Authority, MakeTransport
from tests.outbound.raw_server import Exchange, serving

SHORT = httpx2.Timeout(0.2, pool=None)
PATIENT = httpx2.Timeout(10.0, pool=None)


def client(transport: httpx2.AsyncBaseTransport) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=transport, timeout=PATIENT, trust_env=False)


async def echo(exchange: Exchange) -> None:
    await exchange.answer(exchange.body)


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


class Names:
    """A resolver that knows one answer per question, and counts the questions."""

    def __init__(self, *answers: tuple[str, ...]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> tuple[Address, ...]:
        self.asked.append(host)
        return tuple(map(ip_address, self.answers.pop(0)))


async def test_what_is_dialled_is_what_was_checked_and_the_name_is_asked_once(
    make_transport: MakeTransport, authority: Authority
) -> None:
    names = Names(("127.0.0.1",), ("10.0.0.1",))
    async with serving(echo, tls=authority.server("model.test")) as server:
        http = client(make_transport(resolver=names))
        for _ in range(2):
            response = await http.post(f"https://model.test:{server.port}/", content=b"hi")
            assert response.text == "hi"
    assert names.asked == ["model.test"]
    assert server.exchanges[0].headers["host"] == f"model.test:{server.port}"


async def test_a_host_with_one_closed_address_is_not_dialled(make_transport: MakeTransport) -> None:
    async with serving(echo) as server:
        http = client(make_transport(resolver=Names(("127.0.0.1", "10.0.0.1"))))
        with pytest.raises(BlockedAddress):
            await http.get(f"http://mixed.test:{server.port}/")
    assert server.connections == 0


async def test_addresses_are_tried_in_order(make_transport: MakeTransport) -> None:
    async with serving(echo) as server:
        http = client(make_transport(resolver=Names(("127.0.0.2", "127.0.0.1"))))
        response = await http.post(f"http://two.test:{server.port}/", content=b"hi")
    assert response.text == "hi"


async def test_a_host_without_addresses_is_a_connect_error(make_transport: MakeTransport) -> None:
    with pytest.raises(httpx2.ConnectError):
        await client(make_transport(resolver=Names(()))).get("http://none.test/")


async def test_a_name_server_that_hangs_is_a_connect_timeout(make_transport: MakeTransport) -> None:
    async def hang(_host: str, _port: int) -> tuple[Address, ...]:
        return await asyncio.get_running_loop().create_future()

    with pytest.raises(httpx2.ConnectTimeout):
        await client(make_transport(resolver=hang)).get("http://slow.test/", timeout=SHORT)


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
