"""How a call ends when its answer is bad, late or lost, and how often a server hears it."""

import asyncio
from typing import Any

import pytest

from chatd.core.servers import SHARED
from chatd.mcp.pool import SessionPool
from tests.mcp.peer import OK, Peer, Say, call, error, result, running, server_at
from tests.outbound.raw_server import Exchange


async def _hang(exchange: Exchange, message: dict[str, Any]) -> None:
    await exchange.until_closed()


async def _hang_up(exchange: Exchange, message: dict[str, Any]) -> None:
    exchange.writer.close()


async def _break_off(exchange: Exchange, message: dict[str, Any]) -> None:
    await exchange.begin("content-type: application/json\r\n")
    await exchange.chunk(b'{"jsonrpc":')
    exchange.writer.close()


async def _break_off_events(exchange: Exchange, message: dict[str, Any]) -> None:
    await exchange.begin()
    await exchange.chunk(b"id: 7\ndata:\n\n")
    exchange.writer.close()


async def _end_events(exchange: Exchange, message: dict[str, Any]) -> None:
    await exchange.begin()
    await exchange.end()


def _status(status: int) -> Say:
    async def say(exchange: Exchange, message: dict[str, Any]) -> None:
        await exchange.answer(b"no", status=status)

    return say


async def _html(exchange: Exchange, message: dict[str, Any]) -> None:
    await exchange.answer(b"<html>", headers="content-type: text/html\r\n")


async def _refuse(exchange: Exchange, message: dict[str, Any]) -> None:
    await error(exchange, message, -32602, "no such argument")


async def _refuse_with_minus_32000(exchange: Exchange, message: dict[str, Any]) -> None:
    await error(exchange, message, -32000, "too many widgets", status=400)


async def _flood(exchange: Exchange, message: dict[str, Any]) -> None:
    await exchange.begin("content-type: application/json\r\n")
    for _ in range(300):
        await exchange.chunk(b" " * 65_536)


OUTCOMES: list[tuple[Say, str, str]] = [
    (_hang, "unknown", "no answer came within"),
    (_hang_up, "unknown", "connection broke"),
    (_break_off, "unknown", "connection broke"),
    (_break_off_events, "unknown", "connection broke"),
    (_end_events, "unknown", "connection broke"),
    (_status(500), "unknown", "HTTP 500"),
    (_status(202), "unknown", "without an answer"),
    (_html, "unknown", "neither JSON nor events"),
    (_flood, "unknown", "too large"),
    (_status(401), "failed", "HTTP 401"),
    (_status(403), "failed", "HTTP 403"),
    (_status(503), "failed", "HTTP 503"),
    (_refuse, "failed", "no such argument"),
    (_refuse_with_minus_32000, "failed", "too many widgets"),
]


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize(("say", "outcome", "text"), OUTCOMES)
async def test_a_call_without_an_answer_is_never_sent_twice(
    pool: SessionPool, say: Say, outcome: str, text: str, modern: bool
) -> None:
    async with running(Peer(modern=modern)) as peer:
        peer.says["tools/call"] = say
        timeout_s = 0.5 if say is _hang else 10
        answer = await call(pool, server_at(peer.url), SHARED, "add", {}, timeout_s=timeout_s)
        del peer.says["tools/call"]
        after = await call(pool, server_at(peer.url), SHARED, "add", {})
    assert (answer.outcome, answer.is_error) == (outcome, True)
    assert text in answer.text
    assert (after.text, after.outcome) == ("ok", "done")
    assert peer.count("tools/call") == 2


async def _gone_404(exchange: Exchange, message: dict[str, Any]) -> None:
    await exchange.answer(status=404)


async def _gone_404_with_code(exchange: Exchange, message: dict[str, Any]) -> None:
    await error(exchange, message, -32001, "Session not found", status=404)


async def _gone_400(exchange: Exchange, message: dict[str, Any]) -> None:
    await error(exchange, message, -32000, "Bad Request: No valid session ID", status=400)


async def _gone_200(exchange: Exchange, message: dict[str, Any]) -> None:
    await error(exchange, message, -32600, "Session terminated")


@pytest.mark.parametrize("gone", [_gone_404, _gone_404_with_code, _gone_400, _gone_200])
async def test_a_server_that_forgot_the_session_is_asked_once_more_in_a_new_one(
    pool: SessionPool, gone: Say
) -> None:
    async def forgetful(exchange: Exchange, message: dict[str, Any]) -> None:
        known = exchange.headers.get("mcp-session-id") == peer.session
        await (result(exchange, message, OK) if known else gone(exchange, message))

    async with running(Peer(modern=False)) as peer:
        peer.says["tools/call"] = forgetful
        server = server_at(peer.url)
        await call(pool, server, SHARED, "add", {})
        peer.session = "session-2"
        answers = [await call(pool, server, SHARED, "add", {}) for _ in range(2)]
    assert [answer.text for answer in answers] == ["ok", "ok"]
    assert (peer.count("initialize"), peer.count("tools/call")) == (2, 4)


async def test_a_server_that_forgets_every_session_is_asked_twice(pool: SessionPool) -> None:
    async with running(Peer(modern=False)) as peer:
        peer.says["tools/call"] = _gone_404
        answer = await call(pool, server_at(peer.url), SHARED, "add", {})
    assert (answer.outcome, peer.count("tools/call")) == ("failed", 2)


async def test_calls_that_meet_a_forgotten_session_together_open_one_new_session(
    pool: SessionPool,
) -> None:
    async def forgetful(exchange: Exchange, message: dict[str, Any]) -> None:
        known = exchange.headers.get("mcp-session-id") == peer.session
        await (result(exchange, message, OK) if known else _gone_404(exchange, message))

    async with running(Peer(modern=False)) as peer:
        peer.says["tools/call"] = forgetful
        server = server_at(peer.url)
        await call(pool, server, SHARED, "add", {})
        peer.session = "session-2"
        calls = [call(pool, server, SHARED, "add", {}) for _ in range(20)]
        answers = await asyncio.gather(*calls)
    assert {answer.text for answer in answers} == {"ok"}
    assert peer.count("initialize") == 2


@pytest.mark.parametrize("modern", [True, False])
async def test_a_server_that_is_gone_is_found_again_when_it_is_back(
    pool: SessionPool, modern: bool
) -> None:
    peer = Peer(modern=modern)
    async with running(peer):
        server = server_at(peer.url)
        assert (await call(pool, server, SHARED, "add", {})).outcome == "done"
    gone = await call(pool, server, SHARED, "add", {})
    assert (gone.outcome, gone.text) == ("failed", "The tool was not called: no connection")
    async with running(peer):
        assert (await call(pool, server, SHARED, "add", {})).outcome == "done"
    assert peer.count("tools/call") == 2


async def test_a_server_that_never_answers_the_first_word_fails_the_call(
    pool: SessionPool,
) -> None:
    async with running(Peer()) as peer:
        peer.says["server/discover"] = _hang
        answer = await call(pool, server_at(peer.url), SHARED, "add", {}, timeout_s=0.3)
    assert (answer.outcome, peer.count("tools/call")) == ("failed", 0)
