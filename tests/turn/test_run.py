"""A turn from claim to end, on a real model server and a real MCP server."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from chatd.core.models import Prices
from chatd.store import models
from chatd.store.editing import delete_chat
from chatd.turn.deps import Control
from chatd.turn.run import run_turn
from tests.seed import change_server, make_model, make_server
from tests.store.working import statuses
from tests.stream.listening import data, listening
from tests.turn.bench import Bench, at_once, call
from tests.waiting import one


async def test_an_answer_is_kept_with_what_it_cost(bench: Bench) -> None:
    cost = Prices(input=500_000, output=1_000_000).model_dump()
    url = await one(bench.seed.db, "SELECT base_url FROM model_providers")
    model_id = await make_model(bench.seed.db, url["base_url"], cost=cost)
    await bench.seed.chat("/say hello there", model_config_id=model_id)
    claim = await bench.seed.claim()
    assert await run_turn(bench.deps, claim, Control()) == "completed"
    _, answer = await bench.messages(claim)
    assert answer["content"] == [{"type": "text", "text": "hello there"}]
    usage = answer["usage"]
    assert usage["output_tokens"] > 0
    expected = 500_000 * usage["input_tokens"] + 1_000_000 * usage["output_tokens"]
    assert usage["total_cost_micros"] == expected
    turn = await bench.turn(claim)
    assert (turn["status"], turn["error"], turn["notices"]) == ("completed", None, [])
    assert turn["started_at"] < turn["first_token_at"] < turn["finished_at"]


async def test_tools_are_called_and_their_results_told(bench: Bench) -> None:
    claim = await bench.run(
        at_once(call("add", a=2, b=3), call("echo", text="hi"), call("fail", message="no")),
        call("add", a=5, b=1),
        "/say six",
    )
    assert await bench.told(claim) == [
        'demo__add({"a":2,"b":3})',
        'demo__echo({"text":"hi"})',
        'demo__fail({"message":"no"})',
        "-> 5",
        "-> hi",
        "-> Error executing tool fail: no",
        'demo__add({"a":5,"b":1})',
        "-> 6",
        "six",
    ]
    assert await bench.states(claim) == ["done"] * 4  # a tool that fails has run
    await bench.complete(claim)
    (step, *_) = [m for m in await bench.messages(claim) if m["role"] == "assistant"]
    assert {part["mcp_server_config_id"] for part in step["content"]} == {str(bench.server_id)}


async def test_arguments_that_are_no_json_are_told_to_the_model(bench: Bench) -> None:
    claim = await bench.run("/call demo__add not json", "/echo")
    assert (await bench.turn(claim))["status"] == "completed"
    assert "invalid JSON input" in (await bench.told(claim))[-1]
    await bench.complete(claim)


async def test_the_answers_events_are_published_with_the_rows(bench: Bench, redis: Redis) -> None:
    claim = await bench.claim(call("add", a=2, b=3), "/say five of them")
    async with listening(redis, claim.chat_id) as channel:
        assert await run_turn(bench.deps, claim, Control()) == "completed"
        events: list[Any] = []
        while not events or events[-1].get("status") != "completed":
            events += data(await channel.entry())
    messages = [event["message"] for event in events if event["type"] == "message"]
    assert messages == (await bench.messages(claim))[1:]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    texts = [
        event["part"]["text"]
        for event in events
        if event["type"] == "message_part" and event["part"]["type"] == "text"
    ]
    assert "".join(texts) == "five of them"


# --- failures


@pytest.mark.parametrize(("status", "kind"), [(401, "auth"), (404, "config")])
async def test_a_model_that_says_no_fails_the_turn_and_its_queue_waits(
    bench: Bench, status: int, kind: str
) -> None:
    claim = await bench.claim(f"/fail {status}")
    await bench.seed.send(claim.chat_id, "waits")
    assert await run_turn(bench.deps, claim, Control()) == "failed"
    turn = await bench.turn(claim)
    assert (turn["status"], turn["error"]["kind"]) == ("failed", kind)
    assert turn["error"]["retryable"] is False
    assert await statuses(bench.seed, claim.chat_id) == ["failed", "queued"]


async def test_a_retry_withdraws_what_the_failed_attempt_showed(bench: Bench, redis: Redis) -> None:
    claim = await bench.claim("/drop 3\n/say all is well")
    async with listening(redis, claim.chat_id) as channel:
        assert await run_turn(bench.deps, claim, Control()) == "completed"
        kinds: list[str] = []
        while "message" not in kinds:
            kinds += [event["type"] for event in data(await channel.entry())]
    shown = [kind for kind in kinds if kind != "status"]
    first = shown.index("preview_reset")
    assert set(shown[:first]) == {"message_part"}
    assert shown[first + 1] == "retry"
    assert shown[-1] == "message"
    assert await bench.told(claim) == ["all is well"]


async def test_a_model_that_was_switched_off_fails_the_turn(bench: Bench) -> None:
    claim = await bench.claim("/say x")
    async with bench.seed.db.transaction() as session:
        await models.delete_config(session, bench.seed.model_id)
    assert await run_turn(bench.deps, claim, Control()) == "failed"
    assert (await bench.turn(claim))["error"]["kind"] == "provider_disabled"


async def test_a_turn_that_has_run_for_a_day_is_ended(bench: Bench) -> None:
    claim = await bench.claim("/say x")
    await bench.seed.db.fetch("UPDATE turns SET started_at = started_at - interval '24 hours'")
    assert await run_turn(bench.deps, claim, Control()) == "failed"
    assert (await bench.turn(claim))["error"]["kind"] == "time_limit"


async def test_the_same_call_over_and_over_ends_the_turn_with_its_calls_closed(
    bench: Bench,
) -> None:
    claim = await bench.run(*[call("add", a=1, b=1)] * 6)
    turn = await bench.turn(claim)
    assert (turn["status"], turn["error"]["kind"]) == ("failed", "step_limit")
    assert await bench.states(claim) == ["done"] * 4 + ["cancelled"]
    results = [line for line in await bench.told(claim) if line.startswith("->")]
    assert results[:2] == ["-> 2", "-> 2"]
    assert "3 times" in results[2]
    assert "4 times" in results[3]
    await bench.complete(claim)


async def test_a_server_that_is_away_is_a_notice_and_no_failure(bench: Bench) -> None:
    nowhere = await make_server(bench.seed.db, "gone", availability="default_on")
    claim = await bench.run(call("add", a=1, b=2), "/say three")
    turn = await bench.turn(claim)
    assert turn["status"] == "completed"
    assert [(notice["code"], notice["server_id"]) for notice in turn["notices"]] == [
        ("unreachable", str(nowhere))
    ]
    assert (await bench.told(claim))[-1] == "three"


# --- policy while it runs


async def test_a_tool_denied_meanwhile_is_neither_called_nor_offered_again(bench: Bench) -> None:
    claim = await bench.claim(call("slow", seconds=0.2), call("echo", text="x"), "/tools")
    running = bench.start(claim)
    await bench.until_state(claim, "sent")
    settings = {"url": (await one(bench.seed.db, "SELECT url FROM mcp_server_configs"))["url"]}
    await change_server(
        bench.seed.db,
        bench.server_id,
        availability="default_on",
        tool_deny_list=("echo",),
        **settings,
    )
    assert await running.task == "completed"
    assert await bench.states(claim) == ["done", "denied"]
    offered = (await bench.told(claim))[-1]
    assert "demo__add" in offered
    assert "demo__echo" not in offered


async def test_what_the_renewal_brought_is_obeyed_at_the_next_step(bench: Bench) -> None:
    claim = await bench.claim(call("slow", seconds=0.2), "/tools")
    running = bench.start(claim)
    await bench.until_state(claim, "sent")
    await change_server(bench.seed.db, bench.server_id, enabled=False)
    running.control.policy_version = 2
    assert await running.task == "completed"
    assert "demo__" not in (await bench.told(claim))[-1]


# --- not ours any more


async def test_a_turn_that_is_no_longer_ours_writes_nothing(bench: Bench) -> None:
    claim = await bench.claim("/long 40 5")
    running = bench.start(claim)
    await asyncio.sleep(0)
    await delete_chat(bench.seed.db, bench.seed.actor, claim.chat_id)
    assert await running.task == "lost"
    rows = await bench.seed.db.fetch("SELECT role FROM chat_messages")
    assert [row["role"] for row in rows] == ["user"]
