"""Tool servers that misbehave: every turn ends well, with a notice, and in good time."""

from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

import pytest

from chatd.dev.ports import free_port
from chatd.store.db import Database
from tests.e2e.client import Client, call
from tests.e2e.fleet import Process, registered
from tests.e2e.journal import journaled
from tests.e2e.tool_servers import body, break_off, hang, played, result_bytes
from tests.e2e.view import offered, text_of
from tests.mcp.peer import ADD, Say
from tests.outbound.raw_server import Exchange

BUDGET_S = 10
HUGE = 10 * 1024 * 1024


async def _flood(exchange: Exchange, message: dict[str, Any]) -> None:
    await exchange.answer(b" " * HUGE, headers="content-type: application/json\r\n")


@pytest.mark.parametrize(
    ("slug", "say", "code"),
    [
        ("web-page", body(b"<html>welcome</html>", "text/html"), "bad_answer"),
        ("cut-off", break_off, "unreachable"),
        ("flood", _flood, "bad_answer"),
        ("no-list", result_bytes(b'{"tools":7}'), "bad_answer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_server_without_a_usable_list_costs_a_notice(
    worker: Process, admin: Client, member: Client, slug: str, say: Say, code: str
) -> None:
    async with played(admin, slug, tools__list=say) as bad:
        posted = await member.create("/tools", **bad.only)
        async with member.watching(posted.chat_id) as watch:
            assert await watch.over(posted.turn_id) == await member.screen(posted.chat_id)
    turn = await member.turn(posted)
    assert turn["status"] == "completed"
    assert [(n["code"], n["server_id"]) for n in turn["notices"]] == [(code, bad.id)]
    assert offered((await member.messages(posted))[-1]) == []


async def test_a_server_that_refuses_costs_a_notice_and_spares_the_others(
    worker: Process, admin: Client, member: Client
) -> None:
    url = f"http://127.0.0.1:{free_port()}/mcp"
    async with registered(admin, "down", url) as down, played(admin, "fine") as fine:
        chosen = {"mcp_server_ids": [down["id"], fine.id]}
        turn, messages = await member.run("/call fine__add {}", "/say went well", **chosen)
    assert [text_of(message) for message in messages[2:]] == ["ok", "went well"]
    assert [(n["code"], n["server_id"]) for n in turn["notices"]] == [("unreachable", down["id"])]


async def test_a_server_that_hangs_delays_one_turn_and_not_the_next(
    worker: Process, admin: Client, member: Client
) -> None:
    """Five of them are waited for together; afterwards nobody knocks for a minute."""
    async with AsyncExitStack() as stack:
        hanging = [
            await stack.enter_async_context(
                played(admin, f"hangs-{number}", server__discover=hang, initialize=hang)
            )
            for number in range(5)
        ]
        chosen = {"mcp_server_ids": [server.id for server in hanging]}
        first = await member.create("/say after the first", **chosen)
        turns = [await member.ended(first, within_s=20)]
        for line in ("/say after the second", "/say after the third"):
            posted = await member.say(first.chat_id, line)
            turns.append(await member.ended(posted))
        assert [server.peer.count("server/discover") for server in hanging] == [1] * 5
    for turn in turns:
        assert turn["status"] == "completed"
        assert [notice["code"] for notice in turn["notices"]] == ["unreachable"] * 5
    for turn in turns[1:]:
        assert _ran_s(turn) < BUDGET_S / 2


@pytest.mark.parametrize(
    ("slug", "bad", "code"),
    [
        ("broken-schema", {"name": "bad", "inputSchema": {"type": 7}}, "unusable_schema"),
        ("no-schema", {"name": "bad", "inputSchema": "none"}, "unusable_schema"),
        ("twins", {"name": "add", "inputSchema": {"type": "object"}}, "duplicate_name"),
        ("nameless", {"name": "", "inputSchema": {"type": "object"}}, "unusable_name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_bad_tool_is_left_out_and_the_others_are_not(
    worker: Process, admin: Client, member: Client, slug: str, bad: object, code: str
) -> None:
    async with played(admin, slug, tools=(ADD, bad)) as sloppy:
        turn, messages = await member.run("/tools", f"/call {slug}__add {{}}", **sloppy.only)
        assert offered(messages[-1]) == [f"{slug}__add"]
        assert [(n["code"], n["server_id"]) for n in turn["notices"]] == [(code, sloppy.id)]
        _, messages = await member.run(call(f"{slug}__add", a=1), "/echo", **sloppy.only)
        assert text_of(messages[-1]) == "ok"


@pytest.mark.parametrize(
    ("slug", "say"),
    [
        ("call-page", body(b"<html>welcome</html>", "text/html")),
        ("call-cut", break_off),
        ("call-nonsense", body(b"\x00\xff{")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_call_that_breaks_has_an_unknown_outcome_and_is_not_repeated(
    worker: Process, admin: Client, member: Client, db: Database, slug: str, say: Say
) -> None:
    async with played(admin, slug, tools__call=say) as bad:
        posted = await member.create(f"/call {slug}__add {{}}", "/echo", **bad.only)
        assert (await member.ended(posted))["status"] == "completed"
        assert bad.peer.count("tools/call") == 1
    _, _, result, answer = await member.messages(posted)
    assert result["content"][0]["is_error"]
    assert text_of(answer) == text_of(result)
    assert [row["state"] for row in await journaled(db, posted)] == ["unknown"]


async def test_a_tool_that_hangs_runs_into_its_own_time_limit(
    worker: Process, admin: Client, member: Client
) -> None:
    async with played(admin, "sleepy", tools__call=hang) as sleepy:
        await admin.patch(f"/mcp/servers/{sleepy.id}", {"tool_timeout_seconds": 1})
        turn, messages = await member.run("/call sleepy__add {}", "/say went on", **sleepy.only)
    assert turn["status"] == "completed"
    assert messages[2]["content"][0]["is_error"]
    assert text_of(messages[-1]) == "went on"


def _ran_s(turn: dict[str, str]) -> float:
    started, finished = (datetime.fromisoformat(turn[at]) for at in ("started_at", "finished_at"))
    return (finished - started).total_seconds()
