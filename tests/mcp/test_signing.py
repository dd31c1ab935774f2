"""A server can trust who is said to ask: it checks each request's signature, on both transports."""

import hashlib
import hmac
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from chatd.core.servers import SHARED, CustomHeadersAuth, McpServer, Principal
from chatd.dev.demo_mcp import build
from chatd.mcp.errors import ServerFailed
from chatd.mcp.pool import SessionPool
from tests.mcp.peer import call, running_app, server_at

SECRET = "signing-secret-4711"
CHILD = Principal("user:1", UUID(int=1), UUID(int=2), UUID(int=3))


@dataclass
class Verifying:
    """Lets only requests through that are signed with the secret, as the docstring says it."""

    app: ASGIApp
    seen: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    refused: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        if not self._signed(scope, headers, body):
            self.refused += 1
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body"})
            return
        self.seen.append(headers | {"method": scope["method"]})
        read = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> Any:
            return next(read, None) or await receive()

        await self.app(scope, again, send)

    def _signed(self, scope: Scope, headers: dict[str, str], body: bytes) -> bool:
        timestamp = headers.get("x-coder-signature-timestamp", "0")
        text = "v1:{}:{}:{}:{}:{}:{}:{}".format(
            timestamp,
            scope["method"],
            scope["raw_path"].partition(b"?")[0].decode(),
            headers.get("x-coder-owner-id", ""),
            headers.get("x-coder-chat-id", ""),
            headers.get("x-coder-subchat-id", ""),
            hashlib.sha256(body).hexdigest(),
        )
        right = hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()
        is_recent = abs(time.time() - int(timestamp)) < 300
        return is_recent and headers.get("x-coder-signature") == f"v1={right}"


def app_of(transport: str) -> tuple[Verifying, str]:
    made = build()
    if transport == "sse":
        return Verifying(made.sse_app()), "/sse"
    return Verifying(made.streamable_http_app()), "/mcp"


def signing(url: str, secret: str = SECRET, **changes: Any) -> McpServer:
    return server_at(url, signing_secret=SecretStr(secret), **changes)


@pytest.mark.parametrize("transport", ["streamable_http", "sse"])
async def test_every_request_is_signed_with_who_asks(pool: SessionPool, transport: Any) -> None:
    app, path = app_of(transport)
    async with running_app(app) as origin:
        server = signing(origin + path, transport=transport, forward_coder_headers=True)
        answer = await call(pool, server, CHILD, "add", {"a": 1, "b": 2})
        await pool.aclose()
    assert (answer.text, app.refused) == ("3", 0)
    assert "POST" in {headers["method"] for headers in app.seen}
    assert {headers["x-coder-owner-id"] for headers in app.seen} == {str(UUID(int=1))}
    assert {headers["x-coder-chat-id"] for headers in app.seen} == {str(UUID(int=2))}
    assert {headers["x-coder-subchat-id"] for headers in app.seen} == {str(UUID(int=3))}
    assert all(SECRET not in value for headers in app.seen for value in headers.values())


async def test_without_forwarded_headers_the_request_itself_is_signed(pool: SessionPool) -> None:
    app, path = app_of("streamable_http")
    async with running_app(app) as origin:
        answer = await call(pool, signing(origin + path), SHARED, "add", {"a": 1, "b": 2})
        await pool.aclose()
    assert (answer.text, app.refused) == ("3", 0)
    assert not any("x-coder-owner-id" in headers for headers in app.seen)


async def test_a_configured_header_of_the_same_name_is_what_is_sent_and_signed(
    pool: SessionPool,
) -> None:
    app, path = app_of("streamable_http")
    auth = CustomHeadersAuth(values={"x-CODER-owner-id": SecretStr("ours")})
    async with running_app(app) as origin:
        server = signing(origin + path, auth=auth, forward_coder_headers=True)
        await call(pool, server, CHILD, "add", {"a": 1, "b": 2})
        await pool.aclose()
    assert app.refused == 0
    assert {headers["x-coder-owner-id"] for headers in app.seen} == {"ours"}


@pytest.mark.parametrize("changes", [{"signing_secret": None}, {"secret": "another"}])
async def test_another_secret_or_none_is_turned_away(
    pool: SessionPool, changes: dict[str, Any]
) -> None:
    app, path = app_of("streamable_http")
    async with running_app(app) as origin:
        url = origin + path
        server = signing(url, changes["secret"]) if "secret" in changes else server_at(url)
        with pytest.raises(ServerFailed) as failed:
            await pool.list_tools(server, SHARED)
        await pool.aclose()
    assert failed.value.reason == "auth_required"
    assert "another" not in str(failed.value)
    assert app.seen == []
