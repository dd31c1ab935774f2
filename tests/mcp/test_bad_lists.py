"""Listing the tools of servers that misbehave: a bounded time and a clear reason."""

from typing import Any

import pytest

from chatd.core.servers import SHARED
from chatd.mcp.errors import FailureReason, ServerFailed
from chatd.mcp.pool import SessionPool
from tests.mcp.peer import Peer, Say, error, event, result, running, server_at
from tests.outbound.raw_server import Exchange


def _status(status: int, headers: str = "") -> Say:
    async def say(exchange: Exchange, message: dict[str, Any]) -> None:
        await exchange.answer(b"no", status=status, headers=headers)

    return say


def _body(body: bytes, kind: str = "application/json") -> Say:
    async def say(exchange: Exchange, message: dict[str, Any]) -> None:
        await exchange.answer(body, headers=f"content-type: {kind}\r\n")

    return say


async def _hang(exchange: Exchange, message: dict[str, Any]) -> None:
    await exchange.until_closed()


async def _hang_up(exchange: Exchange, message: dict[str, Any]) -> None:
    exchange.writer.close()


async def _break_off(exchange: Exchange, message: dict[str, Any]) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n"
    await exchange.send(head, b'{"jsonrpc":')
    exchange.writer.close()


async def _break_off_events(exchange: Exchange, message: dict[str, Any]) -> None:
    await exchange.begin()
    await exchange.chunk(b": hello\n\n")
    exchange.writer.close()


async def _drip(exchange: Exchange, message: dict[str, Any]) -> None:
    await exchange.begin("content-type: application/json\r\n")
    await exchange.chunk(b" ")
    await exchange.until_closed()


async def _end_without_an_answer(exchange: Exchange, message: dict[str, Any]) -> None:
    await exchange.begin()
    await exchange.chunk(b": hello\n\n")
    await exchange.end()


async def _flood(exchange: Exchange, message: dict[str, Any]) -> None:
    await exchange.begin("content-type: application/json\r\n")
    for _ in range(160):
        await exchange.chunk(b" " * 65_536)
    await exchange.until_closed()


async def _flood_of_events(exchange: Exchange, message: dict[str, Any]) -> None:
    await exchange.begin()
    await exchange.chunk(b"id: 1\n" + event({"method": "notifications/message", "params": {}}))
    for _ in range(160):
        await exchange.chunk(b": " + b"x" * 65_536 + b"\n\n")
    await exchange.until_closed()


async def _unlisted(exchange: Exchange, message: dict[str, Any]) -> None:
    await result(exchange, message, {"tools": None})


async def _explain(exchange: Exchange, message: dict[str, Any]) -> None:
    await error(exchange, message, -32602, "see https://u:p@h/x?key=1", status=400)


BAD: list[tuple[Say, FailureReason]] = [
    (_status(401), "auth_required"),
    (_status(403), "forbidden"),
    (_status(404), "not_found"),
    (_status(500), "unavailable"),
    (_status(503), "unavailable"),
    (_status(400), "protocol"),
    (_status(202), "protocol"),
    (_status(302, "location: http://127.0.0.1:1/elsewhere\r\n"), "protocol"),
    (_body(b"<html>", "text/html"), "protocol"),
    (_body(b"<html>"), "protocol"),
    (_body(b"[" * 5000), "protocol"),
    (_body(b"", "text/event-stream"), "closed"),
    (_hang, "timeout"),
    (_drip, "timeout"),
    (_hang_up, "closed"),
    (_break_off, "closed"),
    (_break_off_events, "closed"),
    (_end_without_an_answer, "closed"),
    (_flood, "too_large"),
    (_flood_of_events, "too_large"),
    (_unlisted, "protocol"),
    (_explain, "rpc"),
]


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize(("say", "reason"), BAD)
async def test_a_bad_answer_has_a_clear_reason(
    pool: SessionPool, say: Say, reason: FailureReason, modern: bool
) -> None:
    async with running(Peer(modern=modern)) as peer:
        peer.says["tools/list"] = say
        server = server_at(peer.url + "?key=canary")
        with pytest.raises(ServerFailed) as failed:
            await pool.list_tools(server, SHARED, timeout_s=0.5 if reason == "timeout" else 10)
    # Over a session a 404 means that the server forgot it: it was asked again, in a new one.
    expected = "session_unknown" if reason == "not_found" and not modern else reason
    assert failed.value.reason == expected
    assert "canary" not in failed.value.message
    assert "key=" not in failed.value.message


@pytest.mark.parametrize(("say", "reason"), BAD[:13])
async def test_a_bad_answer_to_the_first_word_has_a_clear_reason(
    pool: SessionPool, say: Say, reason: FailureReason
) -> None:
    async with running(Peer()) as peer:
        peer.says["server/discover"] = peer.says["initialize"] = say
        with pytest.raises(ServerFailed) as failed:
            await pool.list_tools(
                server_at(peer.url), SHARED, timeout_s=0.5 if reason == "timeout" else 10
            )
    assert failed.value.reason == reason


async def test_a_closed_port_is_refused(pool: SessionPool) -> None:
    async with running(Peer()) as peer:
        pass
    with pytest.raises(ServerFailed) as failed:
        await pool.list_tools(server_at(peer.url), SHARED)
    assert failed.value.reason == "refused"


async def test_an_address_that_is_not_allowed_is_not_dialled(pool: SessionPool) -> None:
    with pytest.raises(ServerFailed) as failed:
        await pool.list_tools(server_at("http://10.0.0.1/mcp"), SHARED)
    assert failed.value.reason == "blocked"
