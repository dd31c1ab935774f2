"""Servers that ask the user while a tool runs, in both generations of the protocol."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis

from chatd.answering import Answers
from chatd.core.chats import ChatPatch
from chatd.core.work import Claim
from chatd.store.db import Database
from chatd.store.editing import patch_chat
from chatd.store.items import expire_item
from chatd.store.loading import TurnLoader
from chatd.turn.deps import Control
from chatd.turn.run import run_turn
from tests.mcp.questions import demo
from tests.relay import relay_to
from tests.seed import KEYS, change_server
from tests.stream.listening import data, listening
from tests.turn.bench import Bench, call
from tests.waiting import transaction, until


async def asked(bench: Bench, claim: Claim) -> Any:
    """The one thing that the turn waits for, once it does."""

    async def items() -> Any:
        return (await bench.turn(claim))["open_items"]

    (item,) = await until(items)
    return item


async def say(bench: Bench, claim: Claim, item: Any, **answer: Any) -> None:
    answers = Answers(bench.seed.db, bench.deps.wakes, bench.deps.publisher)
    await answers.answer(bench.seed.actor, claim.chat_id, UUID(item["id"]), "elicitation", answer)


async def go_on(bench: Bench) -> str:
    return await run_turn(bench.deps, await bench.seed.claim(), Control())


@pytest.fixture
async def legacy(bench: Bench) -> AsyncGenerator[None]:
    """The demo server speaks the older revisions only."""
    async with demo("legacy") as server:
        await change_server(
            bench.seed.db, bench.server_id, url=server.url, availability="default_on"
        )
        yield


async def test_a_question_of_the_new_protocol_parks_the_turn_and_survives_a_restart(
    bench: Bench,
) -> None:
    claim = await bench.run(call("confirm", action="delete all"), "/say ok")
    item = await asked(bench, claim)
    assert (await bench.turn(claim))["status"] == "requires_action"
    assert (item["kind"], item["mode"]) == ("elicitation", "form")
    assert item["message"] == "Really delete all?"
    assert item["schema"]["required"] == ["sure"]
    assert await bench.states(claim) == ["waiting"]
    await say(bench, claim, item, action="accept", content={"sure": True})
    assert await go_on(bench) == "completed"
    assert "-> done: delete all" in await bench.told(claim)
    assert await bench.states(claim) == ["done"]


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_the_server_hears_that_the_user_does_not_want_to(bench: Bench, action: str) -> None:
    claim = await bench.run(call("confirm", action="x"), "/say ok")
    await say(bench, claim, await asked(bench, claim), action=action)
    assert await go_on(bench) == "completed"
    assert f"-> not done: x ({action})" in await bench.told(claim)


async def test_a_question_nobody_answers_is_cancelled(bench: Bench) -> None:
    claim = await bench.run(call("confirm", action="x"), "/say ok")
    item = await asked(bench, claim)
    await expire_item(bench.seed.db, UUID(item["id"]), claim.chat_id)
    assert await go_on(bench) == "completed"
    assert "-> not done: x (cancel)" in await bench.told(claim)


@pytest.mark.usefixtures("legacy")
async def test_an_old_servers_question_keeps_its_worker(bench: Bench) -> None:
    claim = await bench.claim(call("ask", question="Who?"), "/say ok")
    running = bench.start(claim)
    item = await asked(bench, claim)
    turn = await bench.turn(claim)
    assert (turn["status"], item["message"]) == ("running", "Who?")
    assert await bench.states(claim) == ["sent"]
    await say(bench, claim, item, action="accept", content={"name": "Ada"})
    assert await running.task == "completed"
    assert "-> Hello, Ada!" in await bench.told(claim)


@pytest.mark.usefixtures("legacy")
async def test_a_stop_takes_back_an_old_servers_question(bench: Bench) -> None:
    claim = await bench.claim(call("ask"), "/say ok")
    running = bench.start(claim)
    await asked(bench, claim)
    await patch_chat(bench.seed.db, bench.seed.actor, claim.chat_id, ChatPatch(archived=True))
    running.stop("interrupt")
    assert await running.task == "interrupted"
    assert (await bench.turn(claim))["open_items"] == []
    await bench.complete(claim)


@pytest.mark.usefixtures("legacy")
async def test_a_question_is_put_and_answered_though_the_database_went_away(
    bench: Bench, database_url: str
) -> None:
    claim = await bench.claim(call("ask", question="Who?"), "/say ok")
    async with relay_to(database_url) as (relay, url):
        far = Database(url, pool_size=1)
        deps = replace(bench.deps, db=far, loader=TurnLoader(far, KEYS))
        async with transaction(database_url) as holder:
            await holder.execute("LOCK TABLE open_items IN SHARE MODE")
            running = asyncio.create_task(run_turn(deps, claim, Control()))
            await holder.waiting()  # the question is being written
            relay.cut()
        item = await asked(bench, claim)
        await say(bench, claim, item, action="accept", content={"name": "Ada"})
        assert await running == "completed"
        await far.close()
    assert "-> Hello, Ada!" in await bench.told(claim)
    rows = await bench.seed.db.fetch("SELECT state FROM open_items")
    assert [row["state"] for row in rows] == ["answered"]


@pytest.mark.usefixtures("legacy")
async def test_a_lost_worker_makes_an_old_servers_call_unknown(bench: Bench) -> None:
    claim = await bench.claim(call("ask"), "/say ok")
    running = bench.start(claim)
    await asked(bench, claim)
    running.stop("lost")
    await running.task
    await bench.again(claim)
    assert (await bench.turn(claim))["open_items"] == []
    assert await bench.states(claim) == ["unknown"]
    assert (await bench.told(claim))[-1] == "ok"


async def test_what_a_server_logs_and_how_far_it_is_reaches_the_stream(
    bench: Bench, redis: Redis
) -> None:
    claim = await bench.claim(call("talk", n=3, text="half"), "/say ok")
    told: list[Any] = []
    async with listening(redis, claim.chat_id) as heard:
        running = bench.start(claim)
        while not told or told[-1].get("status") != "completed":
            told += data(await heard.entry())
        await running.task
    logged = [event["message"] for event in told if event.get("code") == "server_log"]
    shown = [event["part"]["progress"] for event in told if "progress" in event.get("part", {})]
    assert logged or shown
    assert all(line.startswith("half ") for line in logged)
    assert all(progress["total"] == 3 for progress in shown)
