"""What a server was sent does not come back in what it says of itself and its tools."""

from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from chatd.core.servers import SHARED, ApiKeyAuth, CustomHeadersAuth, McpServer, Principal
from chatd.mcp.exchange import Refusal
from chatd.mcp.pool import SessionPool
from chatd.outbound.factory import Outbound
from tests.mcp.peer import DISCOVERED, INITIALIZED, Peer, call, result, running, server_at
from tests.outbound.raw_server import Exchange

KEY = "canary-secret-1"
KEYED = ApiKeyAuth(header="X-Key", value=SecretStr(f"Bearer {KEY}"))
USER = Principal("user:1", UUID(int=1), UUID(int=2), UUID(int=3))


def echoing(modern: bool) -> Peer:
    """Says in all its words which headers it was sent."""
    peer = Peer(modern=modern)

    async def discover(exchange: Exchange, message: dict[str, Any]) -> None:
        who = {"name": f"peer {exchange.headers['x-key']}", "version": exchange.headers["x-key"]}
        said = {"instructions": f"I was sent {exchange.headers}"}
        told = {"_meta": {"io.modelcontextprotocol/serverInfo": who}} if modern else {}
        known = DISCOVERED | told if modern else INITIALIZED | {"serverInfo": who}
        await result(exchange, message, known | said)

    async def tools(exchange: Exchange, message: dict[str, Any]) -> None:
        said = f"I was sent {exchange.headers}"
        field = {"type": "string", "description": said, "default": exchange.headers["x-key"]}
        schema = {"type": "object", "properties": {"a": field}}
        add = {"name": "add", "title": exchange.headers["x-key"], "description": said}
        named = {"name": f"add-{KEY}", "inputSchema": schema}
        bad = {"name": "bad", "inputSchema": {"properties": {"a": {"$ref": KEY}}}}
        await result(exchange, message, {"tools": [add | {"inputSchema": schema}, named, bad]})

    peer.says = {"server/discover" if modern else "initialize": discover, "tools/list": tools}
    return peer


@pytest.mark.parametrize("modern", [True, False])
async def test_a_server_that_echoes_its_headers_is_listed_without_secrets(
    pool: SessionPool, modern: bool
) -> None:
    async with running(echoing(modern)) as peer:
        server = server_at(peer.url, auth=KEYED)
        listed = await pool.list_tools(server, SHARED)
        probed = await pool.probe(server, SHARED, timeout_s=10)
    (add,) = listed.tools
    assert "[REDACTED]" in add.description
    assert "[REDACTED]" in listed.instructions
    assert "[REDACTED]" in probed.name
    assert add.input_schema["properties"]["a"]["default"] == probed.version == "[REDACTED]"
    assert KEY not in repr((listed, probed))


async def test_a_tool_that_has_a_secret_for_a_name_is_quarantined(pool: SessionPool) -> None:
    """Under another name it could not be called."""
    async with running(echoing(modern=True)) as peer:
        listed = await pool.list_tools(server_at(peer.url, auth=KEYED), SHARED)
    assert [(drop.name, drop.reason) for drop in listed.quarantined] == [
        ("add-[REDACTED]", "unusable_name"),
        ("bad", "unusable_schema"),
    ]


async def test_a_later_answer_may_repeat_what_connecting_sent(outbound: Outbound) -> None:
    """As one whose credentials have changed meanwhile would."""
    peer = Peer()
    connected: list[str] = []

    async def discover(exchange: Exchange, message: dict[str, Any]) -> None:
        connected.append(exchange.headers["x-key"])
        await result(exchange, message, DISCOVERED)

    async def tell(exchange: Exchange, message: dict[str, Any]) -> None:
        await result(exchange, message, {"content": [{"type": "text", "text": connected[0]}]})

    peer.says = {"server/discover": discover, "tools/call": tell}

    class Changing:
        async def headers(self, server: McpServer, principal: Principal) -> dict[str, str]:
            return {"x-key": "another-secret" if connected else KEY}

        async def refused(
            self, server: McpServer, principal: Principal, refusal: Refusal
        ) -> None: ...

    pool = SessionPool(lambda auth: outbound.mcp_client(auth=auth), Changing())
    async with running(peer):
        answer = await call(pool, server_at(peer.url), SHARED, "add", {})
        await pool.aclose()
    assert connected == [KEY]
    assert answer.text == "[REDACTED]"


@pytest.mark.parametrize("name", ["X-Coder-Session-Token", "X-Coder-Owner-Id"])
async def test_a_configured_header_is_secret_whatever_its_name(
    pool: SessionPool, name: str
) -> None:
    auth = CustomHeadersAuth(values={name: SecretStr(KEY), "x-key": SecretStr("another-secret")})
    async with running(echoing(modern=True)) as peer:
        server = server_at(peer.url, auth=auth, forward_coder_headers=True)
        listed = await pool.list_tools(server, USER)
    (add,) = listed.tools
    assert KEY not in repr(listed)
    assert str(UUID(int=2)) in add.description
