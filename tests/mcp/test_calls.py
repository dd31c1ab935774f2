"""What goes out with a call, and what comes back."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from mcp.server import MCPServer

from chatd.core.asking import Progress
from chatd.core.servers import SHARED, ApiKeyAuth, CustomHeadersAuth, Principal
from chatd.dev.demo_mcp import build
from chatd.mcp.pool import SessionPool
from tests.mcp.peer import ADD, OK, Peer, call, error, result, running, running_app, server_at
from tests.outbound.raw_server import Exchange


async def _hang(exchange: Exchange, message: dict[str, Any]) -> None:
    await exchange.until_closed()


@pytest.mark.parametrize("modern", [True, False])
async def test_a_cancelled_caller_is_free_at_once_and_the_session_goes_on(
    pool: SessionPool, modern: bool
) -> None:
    async with running(Peer(modern=modern)) as peer:
        server = server_at(peer.url)
        peer.says["tools/call"] = _hang
        calling = asyncio.create_task(call(pool, server, SHARED, "add", {}))
        await peer.until("tools/call")
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        del peer.says["tools/call"]
        assert (await call(pool, server, SHARED, "add", {})).outcome == "done"
        if not modern:
            await peer.until("notifications/cancelled")
    assert peer.count("initialize") + peer.count("server/discover") == (1 if modern else 2)


async def test_progress_keeps_a_call_alive_and_is_handed_on(pool: SessionPool) -> None:
    told: list[Progress] = []
    async with running_app(build().streamable_http_app()) as origin:
        server = server_at(f"{origin}/mcp")
        arguments = {"seconds": 1.6, "steps": 8}
        answer = await call(
            pool, server, SHARED, "slow", arguments, timeout_s=0.8, progress=told.append
        )
        await pool.aclose()
    assert (answer.outcome, answer.text) == ("done", "took 1.6 seconds")
    assert told[0] == Progress(1.0, 8.0, "step 1 of 8")


async def test_no_call_outlives_its_absolute_time(pool: SessionPool) -> None:
    async with running(Peer()) as peer:
        peer.says["tools/call"] = _hang
        server = server_at(peer.url)
        answer = await call(pool, server, SHARED, "add", {}, timeout_s=60, absolute_s=0.3)
    assert answer.outcome == "unknown"


async def test_a_result_that_breaks_its_output_schema_is_kept_and_nothing_is_listed(
    pool: SessionPool,
) -> None:
    strict = ADD | {"outputSchema": {"type": "object", "required": ["sum"]}}

    async def break_it(exchange: Exchange, message: dict[str, Any]) -> None:
        await result(exchange, message, {"content": "none", "structuredContent": {"total": 3}})

    async with running(Peer(tools=[strict])) as peer:
        peer.says["tools/call"] = break_it
        answer = await call(pool, server_at(peer.url), SHARED, "add", {})
    assert (answer.text, answer.outcome) == ('{"total":3}', "done")
    assert peer.count("tools/list") == 0


async def test_arguments_and_meta_arrive_whatever_they_hold(pool: SessionPool) -> None:
    arguments = {"big": 2**70, "text": "a\ud83d\x00", "list": [1.5, None, "h\u00e9"]}
    async with running(Peer()) as peer:
        await call(
            pool,
            server_at(peer.url),
            SHARED,
            "add",
            arguments,
            meta={"chatd/tool_call_id": "call-1"},
        )
    heard = peer.last("tools/call").params
    assert heard["arguments"]["text"] == "a\ufffd\ufffd"
    assert heard["arguments"]["list"] == [1.5, None, "h\u00e9"]
    assert heard["_meta"]["chatd/tool_call_id"] == "call-1"
    assert heard["_meta"]["io.modelcontextprotocol/clientInfo"]["name"] == "chatd"


async def test_headers_that_only_the_list_tells_of_are_learned_when_they_are_missed(
    pool: SessionPool,
) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string", "x-mcp-header": "City"}}}
    tool = {"name": "weather", "inputSchema": schema}

    async def picky(exchange: Exchange, message: dict[str, Any]) -> None:
        if exchange.headers.get("mcp-param-city") == "Oslo":
            await result(exchange, message, OK)
        else:
            await error(exchange, message, -32020, "Header mismatch", status=400)

    async with running(Peer(tools=[tool])) as peer:
        peer.says["tools/call"] = picky
        answer = await call(pool, server_at(peer.url), SHARED, "weather", {"city": "Oslo"})
    assert answer.text == "ok"
    assert (peer.count("tools/list"), peer.count("tools/call")) == (1, 2)


async def test_each_principal_has_its_own_session_and_its_own_headers(pool: SessionPool) -> None:
    auth = CustomHeadersAuth(values={"Authorization": "Bearer token-1234", "x-coder-chat-id": "c"})  # pyright: ignore[reportArgumentType]
    people = [
        Principal(f"user:{n}", UUID(int=n), UUID(int=10 + n), UUID(int=20 + n)) for n in (1, 2)
    ]
    async with running(Peer(modern=False)) as peer:
        server = server_at(peer.url, auth=auth, forward_coder_headers=True)
        for principal in people:
            await call(pool, server, principal, "add", {})
    assert peer.count("initialize") == 2
    calls = [heard.headers for heard in peer.heard if heard.method == "tools/call"]
    assert [call["x-coder-owner-id"] for call in calls] == [str(UUID(int=n)) for n in (1, 2)]
    assert {call["x-coder-chat-id"] for call in calls} == {"c"}
    assert {call["authorization"] for call in calls} == {"Bearer token-1234"}
    assert all("authorization" in heard.headers for heard in peer.heard)


async def test_identity_is_sent_only_to_servers_that_want_it(pool: SessionPool) -> None:
    principal = Principal("user:1", UUID(int=1), UUID(int=2))
    async with running(Peer()) as peer:
        await call(pool, server_at(peer.url), principal, "add", {})
    assert not [name for heard in peer.heard for name in heard.headers if "coder" in name]


async def test_a_secret_that_a_server_echoes_reaches_nobody(pool: SessionPool) -> None:
    auth = ApiKeyAuth(header="X-Key", value="canary-secret-1")  # pyright: ignore[reportArgumentType]

    async def echo(exchange: Exchange, message: dict[str, Any]) -> None:
        key = exchange.headers["x-key"]
        await result(exchange, message, {"content": [{"type": "text", "text": f"key {key}"}]})

    async def complain(exchange: Exchange, message: dict[str, Any]) -> None:
        await error(exchange, message, -32602, f"bad {exchange.headers['x-key']}")

    async with running(Peer()) as peer:
        server = server_at(peer.url, auth=auth)
        for say, text in ((echo, "key [REDACTED]"), (complain, "bad [REDACTED]")):
            peer.says["tools/call"] = say
            answer = await call(pool, server, SHARED, "add", {})
            assert answer.text.endswith(text)


async def test_a_call_that_is_late_does_not_leave(pool: SessionPool) -> None:
    async with running(Peer()) as peer:
        server = server_at(peer.url)
        assert await pool.connect(server, SHARED) is None
        late = await call(pool, server, SHARED, "add", {}, leave_within_s=0)
        assert (late.outcome, peer.count("tools/call")) == ("cancelled", 0)
        in_time = await call(pool, server, SHARED, "add", {}, leave_within_s=30)
        assert (in_time.outcome, peer.count("tools/call")) == ("done", 1)
        assert peer.count("server/discover") == 1


async def test_connecting_tells_why_a_call_would_fail(pool: SessionPool) -> None:
    async with running(Peer()) as peer:
        pass
    failed = await pool.connect(server_at(peer.url), SHARED)
    assert failed is not None
    assert (failed.outcome, failed.is_error) == ("failed", True)


async def test_a_long_result_arrives_whole(pool: SessionPool) -> None:
    async with running_app(build().streamable_http_app()) as origin:
        server = server_at(f"{origin}/mcp")
        answer = await call(pool, server, SHARED, "big", {"n": 10_000_000})
        await pool.aclose()
    assert len(answer.text) == 10_000_000
    assert answer.outcome == "done"


async def test_twenty_calls_run_at_the_same_time_over_one_session(pool: SessionPool) -> None:
    together = asyncio.Barrier(20)
    made: MCPServer[Any] = MCPServer("made")

    @made.tool()
    async def meet() -> str:
        """Answers when twenty have called."""
        await together.wait()
        return "met"

    async with running_app(made.streamable_http_app()) as origin:
        server = server_at(f"{origin}/mcp")
        answers = await asyncio.gather(*[call(pool, server, SHARED, "meet", {}) for _ in range(20)])
        await pool.aclose()
    assert {answer.text for answer in answers} == {"met"}
