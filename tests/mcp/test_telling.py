"""What a server tells of a call that runs: progress and log lines, each to the call it is about."""

import asyncio
from typing import Any

import pytest

from chatd.core.asking import LogLine, Progress
from chatd.core.servers import SHARED, ApiKeyAuth
from chatd.mcp import pool as pool_module
from chatd.mcp.pool import SessionPool
from tests.mcp.peer import INITIALIZED, OK, Peer, Say, call, event, result, running, server_at
from tests.mcp.questions import Way, demo
from tests.outbound.raw_server import Exchange

LEVEL = "io.modelcontextprotocol/logLevel"
WAYS: tuple[Way, ...] = ("modern", "legacy", "sse")


def saying(*lines: object, level: str = "info", pause_s: float = 0) -> Say:
    """Logs the lines in the stream of the call, then answers it."""

    async def say(exchange: Exchange, message: dict[str, Any]) -> None:
        await exchange.begin()
        for line in lines:
            params = {"level": level, "logger": "peer", "data": line}
            await exchange.chunk(event({"method": "notifications/message", "params": params}))
            await asyncio.sleep(pause_s)
        await exchange.chunk(event({"id": message["id"], "result": OK}))
        await exchange.end()

    return say


@pytest.mark.parametrize("way", WAYS)
async def test_progress_and_log_lines_arrive_in_order(pool: SessionPool, way: Way) -> None:
    lines: list[LogLine] = []
    steps: list[Progress] = []
    async with demo(way) as server:
        answer = await call(
            pool, server, SHARED, "talk", {"n": 3}, progress=steps.append, heard=lines.append
        )
        await pool.aclose()
    assert answer.text == "said 3 lines"
    assert lines == [LogLine("info", "demo", f"line {n}") for n in (1, 2, 3)]
    assert steps == [Progress(float(n), 3.0, f"{n} of 3") for n in (1, 2, 3)]


async def test_over_one_session_every_call_hears_its_own(pool: SessionPool) -> None:
    heard: dict[str, list[LogLine]] = {"a": [], "b": []}
    async with demo("legacy") as server:
        await asyncio.gather(
            *[
                call(pool, server, SHARED, "talk", {"n": 50, "text": name}, heard=lines.append)
                for name, lines in heard.items()
            ]
        )
        await pool.aclose()
    for name, lines in heard.items():
        assert [line.text for line in lines] == [f"{name} {n}" for n in range(1, 51)]


async def test_over_sse_nobody_hears_lines_that_may_be_about_another_call(
    pool: SessionPool,
) -> None:
    lines: list[LogLine] = []
    slow = asyncio.Event()

    def started(_: Progress) -> None:
        slow.set()

    async with demo("sse") as server:
        arguments = {"seconds": 30, "steps": 1000}
        other = asyncio.create_task(call(pool, server, SHARED, "slow", arguments, progress=started))
        await slow.wait()
        answer = await call(pool, server, SHARED, "talk", {"n": 3}, heard=lines.append)
        other.cancel()
        await asyncio.wait({other})
        await pool.aclose()
    assert (answer.text, lines) == ("said 3 lines", [])


async def test_a_modern_server_is_asked_for_lines_only_where_somebody_listens(
    pool: SessionPool,
) -> None:
    lines: list[LogLine] = []
    async with running(Peer()) as peer:
        await call(pool, server_at(peer.url), SHARED, "add", {})
        await call(pool, server_at(peer.url), SHARED, "add", {}, heard=lines.append)
    silent, talking = [heard.params for heard in peer.heard if heard.method == "tools/call"]
    assert LEVEL not in silent["_meta"]
    assert talking["_meta"][LEVEL] == "info"


@pytest.mark.parametrize("declared", [True, False])
async def test_an_older_server_is_told_the_level_once_if_it_can_log(
    pool: SessionPool, declared: bool
) -> None:
    capabilities: dict[str, Any] = {"tools": {}} | ({"logging": {}} if declared else {})

    async def initialize(exchange: Exchange, message: dict[str, Any]) -> None:
        session = f"mcp-session-id: {peer.session}\r\n"
        answer = INITIALIZED | {"capabilities": capabilities}
        await result(exchange, message, answer, headers=session)

    async with running(Peer(modern=False)) as peer:
        peer.says["initialize"] = initialize
        for _ in range(2):
            await call(pool, server_at(peer.url), SHARED, "add", {})
        if declared:
            await peer.until("logging/setLevel")
            assert peer.last("logging/setLevel").params["level"] == "info"
        await pool.aclose()
    assert peer.count("logging/setLevel") == (1 if declared else 0)


@pytest.mark.parametrize("modern", [True, False])
async def test_log_lines_keep_a_call_alive(pool: SessionPool, modern: bool) -> None:
    lines: list[LogLine] = []
    async with running(Peer(modern=modern)) as peer:
        peer.says["tools/call"] = saying(*range(8), pause_s=0.15)
        answer = await call(
            pool, server_at(peer.url), SHARED, "add", {}, timeout_s=0.7, heard=lines.append
        )
    assert (answer.outcome, len(lines)) == ("done", 8)


async def test_a_line_is_bounded_readable_and_without_secrets(pool: SessionPool) -> None:
    auth = ApiKeyAuth(header="X-Key", value="canary-secret-1")  # pyright: ignore[reportArgumentType]
    lines: list[LogLine] = []
    long = "x" * 1990 + "canary-secret-1" + "y" * 5000
    async with running(Peer()) as peer:
        peer.says["tools/call"] = saying(
            "a\x00\x1b\u202e canary-secret-1", {"k": [1, "h\u00e9"]}, long, None
        )
        server = server_at(peer.url, auth=auth)
        await call(pool, server, SHARED, "add", {}, heard=lines.append)
    assert [line.text for line in lines[:2]] == ["a\ufffd [REDACTED]", '{"k": [1, "h\u00e9"]}']
    assert (len(lines[2].text), "canary" in lines[2].text) == (2000, False)
    assert lines[3].text == "null"


async def test_a_line_of_no_known_level_costs_only_itself(pool: SessionPool) -> None:
    lines: list[LogLine] = []
    async with running(Peer()) as peer:
        peer.says["tools/call"] = saying("hello", level="shouting")
        answer = await call(pool, server_at(peer.url), SHARED, "add", {}, heard=lines.append)
    assert (answer.outcome, lines) == ("done", [])


@pytest.mark.parametrize("name", ["progress", "heard"])
async def test_what_a_listener_raises_ends_the_call(pool: SessionPool, name: str) -> None:
    def gone(_: object) -> None:
        raise LookupError("the lease is lost")

    async with demo("modern") as server:
        with pytest.raises(LookupError, match="the lease is lost"):
            await pool.call_tool(server, SHARED, "talk", {"n": 3}, **{name: gone})  # pyright: ignore[reportArgumentType]
        after = await call(pool, server, SHARED, "echo", {"text": "hi"})
        await pool.aclose()
    assert after.text == "hi"


async def test_progress_that_is_no_number_is_not_handed_on(pool: SessionPool) -> None:
    steps: list[Progress] = []

    async def odd(exchange: Exchange, message: dict[str, Any]) -> None:
        token = message["params"]["_meta"]["progressToken"]
        await exchange.begin()
        for value, total in (("1e999", "2"), ("1", "1e999"), ("true", "2"), ('"3"', "4")):
            params = f'{{"progressToken": {token}, "progress": {value}, "total": {total}}}'
            method = '"jsonrpc": "2.0", "method": "notifications/progress"'
            await exchange.chunk(f'data: {{{method}, "params": {params}}}\n\n'.encode())
        await exchange.chunk(event({"id": message["id"], "result": OK}))
        await exchange.end()

    async with running(Peer()) as peer:
        peer.says["tools/call"] = odd
        answer = await call(pool, server_at(peer.url), SHARED, "add", {}, progress=steps.append)
    assert answer.outcome == "done"
    assert steps == [Progress(1.0, None, "")]


async def test_a_long_progress_message_is_cut(pool: SessionPool) -> None:
    steps: list[Progress] = []

    async def wordy(exchange: Exchange, message: dict[str, Any]) -> None:
        token = message["params"]["_meta"]["progressToken"]
        params = {"progressToken": token, "progress": 1, "message": "x" * 100_000}
        await exchange.begin()
        await exchange.chunk(event({"method": "notifications/progress", "params": params}))
        await exchange.chunk(event({"id": message["id"], "result": OK}))
        await exchange.end()

    async with running(Peer()) as peer:
        peer.says["tools/call"] = wordy
        await call(pool, server_at(peer.url), SHARED, "add", {}, progress=steps.append)
    assert [len(step.message) for step in steps] == [500]


async def test_a_flood_of_lines_is_not_read_to_its_end(
    pool: SessionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "CALL_ROOM", 100_000)
    lines: list[LogLine] = []
    async with running(Peer()) as peer:
        peer.says["tools/call"] = saying(*["x" * 1000] * 200)
        answer = await call(pool, server_at(peer.url), SHARED, "add", {}, heard=lines.append)
    assert (answer.outcome, "too large" in answer.text) == ("unknown", True)
    assert 0 < len(lines) < 100
