"""Secrets go where they are used and nowhere else: canaries are sent, then searched everywhere."""

from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import orjson

from chatd.store.db import Database
from tests.e2e.client import Client, at_once, call
from tests.e2e.fleet import Fleet, add_model, registered, scripted_model
from tests.e2e.places import collect, holds, redis_values, rows, traces
from tests.e2e.view import text_of
from tests.mcp.peer import ADD, DISCOVERED, Peer, result
from tests.outbound.raw_server import Exchange, serving

MODEL_KEY = "sk-canary-model-3f9d1c7b5a"
TOOL_KEY = "canary-tool-8e2b6d4f0a"
HEADER = "canary-header-5c1a9e7d3b"
SIGNING = "canary-signing-7f3e5b9d1c"
CLIENT_SECRET = "canary-client-2d8c6a4e0f"
NO_TOKEN = "chatd_canary_token_0b1c2d3e4f"

KEYED = {"auth_type": "api_key", "api_key_header": "x-api-key", "api_key_value": TOOL_KEY}
HEADED = {
    "auth_type": "custom_headers",
    "custom_headers": {"x-tenant": HEADER},
    "signing_secret": SIGNING,
}
OAUTH2 = {
    "auth_type": "oauth2",
    "oauth2_client_id": "chatd",
    "oauth2_client_secret": CLIENT_SECRET,
    "oauth2_auth_url": "https://sso.example/authorize",
    "oauth2_token_url": "https://sso.example/token",
}
AUTHS = {"keyed": KEYED, "headed": HEADED, "unconnected": OAUTH2}

SERVER_INFO = "io.modelcontextprotocol/serverInfo"
SPANS = ("chatd-api", "GET /api", "tool_call", "stream")


async def test_secrets_are_in_no_log_no_row_no_key_and_no_event(
    crew: Fleet, db: Database, admin: Client
) -> None:
    # Their servers are still there when the tables are searched.
    async with AsyncExitStack() as stack:
        collector = await stack.enter_async_context(serving(collect))
        traced = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        await crew.worker(100, CHATD_LOG_LEVEL="debug", **traced)
        await crew.api(CHATD_LOG_LEVEL="debug", **traced)
        member = await stack.enter_async_context(crew.client("max", api=-1))
        made = (await member.post("/users/me/tokens", {"name": "canary"}))["token"]
        seen = await _turns_with_canaries(stack, crew, admin, member)
        refused = await member.http.get("/chats", headers={"Authorization": f"Bearer {NO_TOKEN}"})
        assert refused.status_code == 401
        places = {
            "what clients got": orjson.dumps(seen),
            "traces": await traces(collector, *SPANS),
            **crew.logs(),
            **await rows(db),
            **await redis_values(crew.stack.redis_url),
        }
    assert {place.partition("-")[0] for place in places} >= {"worker", "api"}
    assert any(place.startswith("redis chatd:") for place in places)
    assert b"use the canaries" in places["table chat_messages"]
    assert b"I was sent" in places["table tool_pins"]
    passwords = [urlsplit(url).password for url in (crew.stack.database_url, crew.stack.redis_url)]
    planted = [MODEL_KEY, TOOL_KEY, HEADER, SIGNING, CLIENT_SECRET]
    secrets = [*planted, NO_TOKEN, made, crew.encryption_key, *crew.tokens.values()]
    for secret in [*secrets, *filter(None, passwords)]:
        assert [place for place, text in places.items() if holds(text, secret)] == []


async def _turns_with_canaries(
    stack: AsyncExitStack, crew: Fleet, admin: Client, member: Client
) -> list[Any]:
    """What clients get of turns whose model or tools echo the secrets they were sent."""
    good = await stack.enter_async_context(
        scripted_model(crew.folder / "keyed", "--api-key", MODEL_KEY)
    )
    bad = await stack.enter_async_context(serving(_refuse))
    peer = Peer()
    peer.says = {
        "tools/call": _tell_headers,
        "tools/list": _describe_headers,
        "server/discover": _instruct_with_headers,
    }
    raw = await stack.enter_async_context(serving(peer.answer))
    models = [
        await add_model(admin, url, key=MODEL_KEY)
        for url in (good.url, f"http://127.0.0.1:{bad.port}/v1")
    ]
    url = f"http://127.0.0.1:{raw.port}/mcp"
    servers = [
        (await stack.enter_async_context(registered(admin, slug, url, **auth)))["id"]
        for slug, auth in AUTHS.items()
    ]
    seen, turns = await _followed(member, models, servers)
    heard = [heard.headers for heard in peer.heard if heard.method == "tools/call"]
    assert {headers.get("x-api-key") for headers in heard} == {TOOL_KEY, None}
    assert {headers.get("x-tenant") for headers in heard} == {HEADER, None}
    (_, messages), (failed, _) = turns
    assert "I was sent" in text_of(messages[-1])
    assert failed["error"]["kind"] == "auth"
    return [*seen, *turns, *await _told(admin, member, servers)]


async def _followed(
    member: Client, models: list[str], servers: list[str]
) -> tuple[list[Any], list[Any]]:
    """All events, and all turns with their messages: one turn by each model."""
    lines = ("use the canaries", at_once(call("keyed__add"), call("headed__add")), "/echo")
    seen: list[Any] = []
    turns: list[Any] = []
    for model in models:
        posted = await member.create(*lines, model_config_id=model, mcp_server_ids=servers)
        async with member.watching(posted.chat_id) as watch:
            await watch.over(posted.turn_id)
            seen += [event.data for event in watch.events]
        turns.append((await member.turn(posted), await member.messages(posted)))
    return seen, turns


async def _told(admin: Client, member: Client, servers: list[str]) -> list[Any]:
    """What the front door tells of models, tool servers, people and what was done."""
    tried = [await admin.http.post(f"/mcp/servers/{server}/test") for server in servers]
    assert [answer.json()["ok"] for answer in tried] == [True, True, False]
    assert all("I was sent" in answer.text for answer in tried[:2])
    tools = [await admin.get(f"/mcp/servers/{server}/tools") for server in servers]
    assert [len(found["tools"]) for found in tools] == [1, 1, 0]
    paths = ("/chats/providers", "/chats/model-configs", "/mcp/servers", "/health/report", "/audit")
    exported = await admin.http.get("/audit/export")
    assert (exported.status_code, "signing_secret" in exported.text) == (200, True)
    own = await member.get("/users/me/tokens")
    known = [await admin.get(path) for path in paths]
    return [*[answer.text for answer in tried], *tools, *known, exported.text, own]


async def _refuse(exchange: Exchange) -> None:
    key = exchange.headers["authorization"].removeprefix("Bearer ")
    error = {"message": f"Incorrect API key provided: {key}", "code": "invalid_api_key"}
    await exchange.answer(
        orjson.dumps({"error": error}), status=401, headers="content-type: application/json\r\n"
    )


async def _tell_headers(exchange: Exchange, message: dict[str, Any]) -> None:
    said = {"type": "text", "text": _said(exchange)}
    await result(exchange, message, {"content": [said]})


async def _describe_headers(exchange: Exchange, message: dict[str, Any]) -> None:
    await result(exchange, message, {"tools": [ADD | {"description": _said(exchange)}]})


async def _instruct_with_headers(exchange: Exchange, message: dict[str, Any]) -> None:
    who = {SERVER_INFO: {"name": _said(exchange), "version": "1"}}
    said = {"instructions": _said(exchange), "_meta": who}
    await result(exchange, message, DISCOVERED | said)


def _said(exchange: Exchange) -> str:
    """The headers, those that hold a secret first."""
    return f"I was sent {dict(reversed(exchange.headers.items()))}"
