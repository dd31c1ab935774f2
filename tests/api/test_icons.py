"""Icons of MCP servers: everybody gets them from us."""

from base64 import b64encode
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from chatd.store.db import Database
from tests.api.conftest import BASE, Person
from tests.api.test_servers import add
from tests.outbound.conftest import Authority
from tests.outbound.raw_server import Exchange, RawServer, serving

PIXEL = b"\x89PNG\r\n\x1a\n pixel"
LIMIT = 256 * 1024


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{b64encode(data).decode()}"


def image(data: bytes, kind: str = "image/png", status: str = "200 OK", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n{more}\r\n"
    return head.encode() + data


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """The only one that this process trusts."""
    made = Authority(tmp_path)
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(made.certificate.public_bytes(Encoding.PEM))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    return made


@pytest.fixture
async def icons(authority: Authority) -> AsyncGenerator[Callable[[bytes], RawServer]]:
    """A server of icons that answers with whatever it was told last."""
    told: list[bytes] = []

    async def answer(exchange: Exchange) -> None:
        exchange.writer.write(told[-1])
        await exchange.writer.drain()

    async with serving(answer, tls=authority.server("localhost")) as server:

        def tell(answer: bytes) -> RawServer:
            told.append(answer)
            return server

        yield tell


async def icon_of(person: Person, server: Any) -> Any:
    return await person.get(f"/mcp/servers/{server['id']}/icon")


async def test_an_icon_in_the_config_is_served_as_what_it_is(admin: Person, member: Person) -> None:
    made = await add(admin, icon_url=data_url(PIXEL))
    seen = (await member.get(f"/mcp/servers/{made['id']}")).json()
    assert seen["icon_url"] == f"{BASE}/mcp/servers/{made['id']}/icon"
    answer = await member.http.get(seen["icon_url"])
    assert (answer.status_code, answer.content) == (200, PIXEL)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert "content-disposition" not in answer.headers


async def test_a_drawing_is_never_shown_as_a_page(admin: Person) -> None:
    drawing = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    made = await add(admin, icon_url=data_url(drawing, "image/svg+xml"))
    answer = await icon_of(admin, made)
    assert (answer.status_code, answer.content) == (200, drawing)
    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.headers["content-disposition"].startswith("attachment")


async def test_who_may_not_see_a_server_does_not_see_its_icon(
    admin: Person, member: Person
) -> None:
    off = await add(admin, icon_url=data_url(PIXEL), enabled=False)
    plain = await add(admin, slug="plain")
    theirs = await add(admin, slug="theirs", icon_url=data_url(PIXEL), access="groups")
    for hidden in (off, plain, theirs):
        assert (await icon_of(member, hidden)).status_code == 404
    assert (await icon_of(admin, off)).status_code == 200
    assert (await icon_of(admin, plain)).status_code == 404
    assert (await member.get(f"/mcp/servers/{plain['id']}")).json()["icon_url"] == ""
    bad = await member.get("/mcp/servers/plain/icon")
    assert (bad.status_code, bad.json()["message"]) == (400, "Invalid MCP server config ID.")


async def test_an_icon_elsewhere_is_fetched_once_for_everybody(
    admin: Person, member: Person, icons: Callable[[bytes], RawServer]
) -> None:
    server = icons(image(PIXEL, "image/PNG; charset=x"))
    made = await add(admin, url=server.url, icon_url=f"{server.url}/i.png?size=32")
    assert made["icon_url"] == f"{server.url}/i.png?size=32"
    for person in (member, admin, member):
        answer = await icon_of(person, made)
        assert (answer.status_code, answer.content) == (200, PIXEL)
        assert answer.headers["content-type"] == "image/png"
    (asked,) = server.exchanges
    assert (asked.method, asked.path) == ("GET", "/i.png?size=32")
    assert not {"authorization", "cookie", "referer"} & set(asked.headers)


@pytest.mark.parametrize(
    "answer",
    [
        image(b"<html>", "text/html"),
        image(b"data: hi\n\n", "text/event-stream"),
        image(b"gone", status="404 Not Found"),
        image(b"", status="302 Found", more="location: http://127.0.0.1:9/\r\n"),
        image(bytes(LIMIT + 1)),
        image(PIXEL, more="content-encoding: gzip\r\n"),
        b"no HTTP at all\r\n\r\n",
    ],
    ids=["a page", "a stream", "gone", "elsewhere", "too large", "compressed", "no HTTP"],
)
async def test_what_is_no_icon_is_not_handed_on(
    admin: Person, member: Person, icons: Callable[[bytes], RawServer], answer: bytes
) -> None:
    server = icons(answer)
    made = await add(admin, url=server.url, icon_url=f"{server.url}/i.png")
    for _ in range(2):
        refused = await icon_of(member, made)
        assert (refused.status_code, refused.json()["code"]) == (502, "bad_gateway")
    assert len(server.exchanges) == 1
    icons(image(PIXEL))
    await admin.patch(f"/mcp/servers/{made['id']}", {"icon_url": f"{server.url}/other.png"})
    assert (await icon_of(member, made)).content == PIXEL


@pytest.mark.parametrize(
    "url",
    [
        "https://10.0.0.1/i.png",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/i.png",
        "https://nobody.invalid/i.png",
    ],
)
async def test_an_icon_is_fetched_from_no_closed_address(
    admin: Person, db: Database, url: str
) -> None:
    made = await add(admin, icon_url=url)
    assert (await icon_of(admin, made)).status_code == 502


async def test_an_icon_lies_in_a_private_network_only_if_its_server_does(
    admin: Person, icons: Callable[[bytes], RawServer]
) -> None:
    server = icons(image(PIXEL))
    icon_url = f"{server.url}/i.png"
    inside = await add(admin, url=server.url, icon_url=icon_url)
    outside = await add(admin, slug="outside", url="https://1.1.1.1/mcp", icon_url=icon_url)
    assert (await icon_of(admin, inside)).content == PIXEL
    assert (await icon_of(admin, outside)).status_code == 502
    assert len(server.exchanges) == 1
