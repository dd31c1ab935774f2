"""Turns in plan mode: what they are told and offered, how they end, and that they end once."""

import re
from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
import pytest

from chatd.core.chats import ChatPatch
from chatd.core.plans import MAX_PLAN_BYTES
from chatd.core.tools import OfferedTool, ToolCall
from chatd.core.work import CallOutcome, Claim, LoadedTurn, PlannedCall
from chatd.llm.assembly import PLANNING, PLANNING_AGENT
from chatd.loop import result_part
from chatd.store import work
from chatd.store.config import write_setting
from chatd.store.editing import patch_chat
from chatd.store.plans import Approving, approve_plan, newest_plan
from chatd.tools.planning import ASKED
from chatd.turn.context import CallContext
from chatd.turn.deps import Control
from chatd.turn.planning import propose_plan
from chatd.turn.run import run_turn
from tests.seed import answer, change_server
from tests.strict import accepted
from tests.turn.bench import Bench, call
from tests.waiting import one

ASK = {
    "questions": [
        {
            "header": "Scope",
            "question": "Which one?",
            "options": [
                {"label": "one", "description": "the first"},
                {"label": "two", "description": "both"},
            ],
        }
    ]
}


def proposing(content: str = "1. Do it.", **more: Any) -> str:
    return f"/call propose_plan {orjson.dumps({'content': content, **more}).decode()}"


def asking(questions: Any = ASK) -> str:
    return f"/call ask_user_question {orjson.dumps(questions).decode()}"


async def planning(bench: Bench, *script: str) -> Claim:
    """A new chat whose turn in plan mode plays this script to its end."""
    await bench.seed.chat("\n".join(script), plan_mode="plan")
    claim = await bench.seed.claim()
    await run_turn(bench.deps, claim, Control())
    return claim


async def goes_on(bench: Bench, claim: Claim, *script: str, **turn: Any) -> list[str]:
    """What a next turn of the chat tells."""
    await bench.seed.send(claim.chat_id, "\n".join(script), **turn)
    again = await bench.seed.claim()
    await run_turn(bench.deps, again, Control())
    return await bench.told(claim)


async def plans(bench: Bench) -> list[Any]:
    return list(
        await bench.seed.db.fetch(
            "SELECT id, name, media_type, data FROM files WHERE kind = 'plan'"
            " ORDER BY created_at, id"
        )
    )


def own_tools(told: str) -> set[str]:
    return {name for name in orjson.loads(told) if "__" not in name}


# --- how it ends


async def test_a_proposed_plan_is_kept_and_ends_the_turn(bench: Bench) -> None:
    claim = await planning(bench, proposing("# Plan\n\n1. é"), "/say never")
    assert (await bench.turn(claim))["status"] == "completed"
    (row,) = await plans(bench)
    call_line, result = await bench.told(claim)
    assert call_line.startswith("propose_plan(")
    assert orjson.loads(result.removeprefix("-> ")) == {
        "ok": True,
        "file_id": str(row["id"]),
        "name": "plan-1.md",
        "kind": "plan",
        "media_type": "text/markdown",
    }
    assert (row["media_type"], bytes(row["data"]).decode()) == ("text/markdown", "# Plan\n\n1. é")
    assert await bench.states(claim) == ["done"]
    await bench.complete(claim)


async def test_a_question_ends_the_turn_and_the_answer_is_the_next_message(bench: Bench) -> None:
    claim = await planning(bench, asking(), "/say never")
    assert (await bench.turn(claim))["status"] == "completed"
    assert (await bench.told(claim))[1:] == [f"-> {ASKED}"]
    (*_, sent) = await goes_on(bench, claim, "two, please", "/messages")
    accepted(orjson.loads(sent))
    assert [message["role"] for message in orjson.loads(sent)] == [
        *("system", "user", "assistant", "tool", "user")
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        proposing(" "),
        proposing("x" * (MAX_PLAN_BYTES + 1)),
        asking({"questions": []}),
        "/call propose_plan {}",
        '/call ask_user_question {"questions": "what?"}',
    ],
)
async def test_what_the_model_got_wrong_it_may_mend(bench: Bench, wrong: str) -> None:
    claim = await planning(bench, wrong, proposing(), "/say never")
    assert await bench.states(claim) == ["failed", "done"]
    assert [row["name"] for row in await plans(bench)] == ["plan-1.md"]
    await bench.complete(claim)


async def test_plans_are_numbered_named_for_their_titles_and_the_last_is_the_newest(
    bench: Bench,
) -> None:
    first = f"{proposing('1')} & {proposing('2', title='Move')[6:]}"
    claim = await planning(bench, first)
    await goes_on(bench, claim, proposing("3"))
    assert [row["name"] for row in await plans(bench)] == ["plan-1.md", "Move.md", "plan-3.md"]
    newest = await newest_plan(bench.seed.db, bench.seed.actor, claim.chat_id)
    assert (newest.name, newest.content) == ("plan-3.md", "3")


# --- crashes


CRASHES = ["call intended", "call sent", "file kept", "call done", "results committed"]


@pytest.mark.parametrize("crash", CRASHES)
async def test_a_plan_is_proposed_once_and_the_model_is_not_asked_again(
    bench: Bench, crash: str
) -> None:
    await bench.seed.chat(f"{proposing()}\n/say never", plan_mode="plan")
    claim = await bench.seed.claim()
    await get_to(bench, claim, CRASHES.index(crash))
    again = await bench.again(claim)
    assert again.attempt == 2
    assert (await bench.turn(claim))["status"] == "completed"
    assert await bench.states(claim) == ["done"]
    assert len(await bench.told(claim)) == 2
    assert len(await plans(bench)) == 1
    await bench.complete(claim)


async def get_to(bench: Bench, claim: Claim, point: int) -> None:
    """What a worker had written when it was lost at this point."""
    db, loaded = bench.seed.db, await bench.deps.loader.load(claim)
    tool = OfferedTool(
        "propose_plan", "propose_plan", "", {}, kind="builtin", safe=True, stop_after=True
    )
    planned = PlannedCall(ToolCall("p1", "propose_plan", '{"content":"1."}'), 1, 1, tool)
    await work.commit_step(db, claim, [answer("", 1, planned)], [planned], [], None)
    if point >= 1:
        await work.mark_sent(db, claim, 1, [1], loaded.policy_version)
    if point < 2:
        return
    context = CallContext(bench.deps, loaded, 10_000)
    result = await propose_plan(context, planned, {"content": "1."}, None)
    part: Any = result_part(planned, result)
    outcome = CallOutcome(1, 1, "done", part)
    if point == 3:
        await work.record_result(db, claim, outcome)
    if point == 4:
        message = replace(answer("", 1), role="tool", position=1, content=[part])
        await work.commit_results(db, claim, [message], [outcome], [])


async def test_a_failed_call_before_a_crash_does_not_end_the_turn(bench: Bench) -> None:
    await bench.seed.chat("/call propose_plan {}\n/say mended", plan_mode="plan")
    claim = await bench.seed.claim()
    tool = OfferedTool("propose_plan", "propose_plan", "", {}, kind="builtin", stop_after=True)
    planned = PlannedCall(ToolCall("p1", "propose_plan", "{}"), 1, 1, tool)
    part: Any = result_part(planned, await propose_plan(_nothing(bench, claim), planned, {}, None))
    await work.commit_step(bench.seed.db, claim, [answer("", 1, planned)], [planned], [], None)
    message = replace(answer("", 1), role="tool", position=1, content=[part])
    outcome = CallOutcome(1, 1, "failed", part)
    await work.commit_results(bench.seed.db, claim, [message], [outcome], [])
    await bench.again(claim)
    assert (await bench.told(claim))[-1] == "mended"


# --- what it is told and offered


async def test_a_plan_turn_plans_and_another_does_not(bench: Bench) -> None:
    claim = await planning(bench, "/tools")
    (offered,) = await bench.told(claim)
    assert {"propose_plan", "ask_user_question"} <= own_tools(offered)
    (*_, later) = await goes_on(bench, claim, "/tools", plan_mode="")
    assert not {"propose_plan", "ask_user_question"} & own_tools(later)
    (*_, refused) = await goes_on(bench, claim, proposing())
    assert refused == "tool not offered: propose_plan"


async def let_plan(bench: Bench) -> None:
    """The server may be used while planning."""
    url = (await one(bench.seed.db, "SELECT url FROM mcp_server_configs"))["url"]
    await change_server(
        bench.seed.db,
        bench.server_id,
        url=url,
        availability="default_on",
        allow_in_plan_mode=True,
    )


async def test_the_overlay_and_the_administrators_words_stand_above_users_and_servers(
    bench: Bench,
) -> None:
    await let_plan(bench)
    async with bench.seed.db.transaction() as session:
        value = {"text": "Plans have three steps."}
        await write_setting(session, "plan_mode_instructions", value, bench.seed.actor.user_id)
    claim = await planning(bench, "/messages")
    (sent,) = await bench.told(claim)
    system = orjson.loads(sent)[0]["content"]
    words = ("You are", PLANNING, "Plans have three steps.", 'server="demo"')
    places = [system.index(each) for each in words]
    assert places == sorted(places)
    (*_, later) = await goes_on(bench, claim, "/messages", plan_mode="")
    assert "Plan mode" not in orjson.loads(later)[0]["content"]
    assert "three steps" not in orjson.loads(later)[0]["content"]


async def test_a_planning_sub_agent_reports_and_has_no_servers_plans_or_questions(
    bench: Bench,
) -> None:
    await let_plan(bench)
    spawn = {"type": "general", "prompt": "/tools\n/messages"}
    await planning(bench, f"/call spawn_agent {orjson.dumps(spawn).decode()}")
    child = await bench.seed.claim()
    loaded: LoadedTurn = await bench.deps.loader.load(child)
    assert (loaded.plan_mode, loaded.parent_chat_id is None) == (True, False)
    await run_turn(bench.deps, child, Control())
    (offered,) = await bench.told(child)
    assert orjson.loads(offered) == ["read_result"]
    (*_, sent) = await goes_on(bench, child, "/messages")
    system = orjson.loads(sent)[0]["content"]
    assert PLANNING_AGENT in system
    assert PLANNING not in system


async def test_the_clients_own_tools_are_not_offered_while_planning(bench: Bench) -> None:
    await bench.seed.chat("/tools", plan_mode="plan")
    await bench.seed.db.fetch(
        "UPDATE chats SET dynamic_tools = "
        """'[{"name": "pick", "description": "", "input_schema": {"type": "object"}}]'"""
    )
    claim = await bench.seed.claim()
    await run_turn(bench.deps, claim, Control())
    (offered,) = await bench.told(claim)
    assert "pick" not in own_tools(offered)
    (*_, later) = await goes_on(bench, claim, "/tools", plan_mode="")
    assert "pick" in own_tools(later)


# --- whose mode it is


@pytest.mark.parametrize(("mode", "other"), [("plan", ""), ("", "plan")])
async def test_a_turns_mode_is_the_one_it_was_sent_with(
    bench: Bench, mode: Any, other: Any
) -> None:
    await bench.seed.chat("/tools", plan_mode=mode)
    claim = await bench.seed.claim()
    waiting = await bench.seed.send(claim.chat_id, "/tools")
    await patch_chat(bench.seed.db, bench.seed.actor, claim.chat_id, ChatPatch(plan_mode=other))
    last = await bench.seed.send(claim.chat_id, "/tools")
    assert waiting.turn["plan_mode"] == (mode or None)
    assert last.turn["plan_mode"] == (other or None)
    await run_turn(bench.deps, claim, Control())
    for _ in (waiting, last):
        await run_turn(bench.deps, await bench.seed.claim(), Control())
    offered = [line for line in await bench.told(claim) if line.startswith("[")]
    assert ["propose_plan" in own_tools(line) for line in offered] == [
        *([mode == "plan"] * 2),
        other == "plan",
    ]


async def test_a_lost_turns_mode_stays_too(bench: Bench) -> None:
    await bench.seed.chat("/tools", plan_mode="plan")
    claim = await bench.seed.claim()
    await patch_chat(bench.seed.db, bench.seed.actor, claim.chat_id, ChatPatch(plan_mode=""))
    await bench.again(claim)
    (offered,) = await bench.told(claim)
    assert "propose_plan" in own_tools(offered)


# --- approving


async def approve(bench: Bench, chat_id: UUID, **asked: Any) -> Any:
    values: dict[str, Any] = {"file_id": None, "content": (), "once": None, "traceparent": None}
    new_id = (await one(bench.seed.db, "SELECT gen_random_uuid() AS id"))["id"]
    asking = Approving(bench.seed.actor, chat_id, turn_id=new_id, **(values | asked))
    return await approve_plan(bench.seed.db, asking)


async def test_an_approved_plan_is_read_by_a_turn_with_all_tools(bench: Bench) -> None:
    claim = await planning(bench, proposing("1. add\n" + call("add", a=2, b=3) + "\n/messages"))
    turn = (await approve(bench, claim.chat_id)).turn
    assert (turn["status"], turn["plan_mode"]) == ("pending", None)
    await run_turn(bench.deps, await bench.seed.claim(), Control())
    *_, made, result, sent = await bench.told(claim)
    assert (made, result) == ('demo__add({"a":2,"b":3})', "-> 5")
    messages = orjson.loads(sent)
    accepted(messages)
    said = [message["content"] for message in messages if message["role"] == "user"][-1]
    assert re.search(r"approve the plan plan-1\.md", said)
    assert "1. add\n" in said
    assert "Plan mode is on" not in messages[0]["content"]
    row = await one(bench.seed.db, "SELECT plan_mode FROM chats")
    assert row["plan_mode"] is None


async def test_the_plan_is_read_although_the_history_was_cleared(bench: Bench) -> None:
    claim = await planning(bench, proposing("1. dig\n/messages"))
    from_later = (
        "UPDATE chats SET context_from_message_id = (SELECT max(id) + 1 FROM chat_messages)"
    )
    await bench.seed.db.fetch(from_later)
    await approve(bench, claim.chat_id)
    await run_turn(bench.deps, await bench.seed.claim(), Control())
    sent = orjson.loads((await bench.told(claim))[-1])
    assert [message["role"] for message in sent] == ["system", "user"]
    assert "1. dig" in sent[1]["content"]


async def test_an_approval_behind_a_running_turn_waits_for_it(bench: Bench) -> None:
    claim = await planning(bench, proposing("1."))
    await bench.seed.send(claim.chat_id, "/tools")
    running = await bench.seed.claim()
    turn = (await approve(bench, claim.chat_id)).turn
    assert (turn["status"], turn["plan_mode"]) == ("queued", None)
    await run_turn(bench.deps, running, Control())
    (offered,) = [line for line in await bench.told(claim) if line.startswith("[")]
    assert "propose_plan" in own_tools(offered)
    assert (await bench.seed.claim()).turn_id == UUID(turn["id"])


def _nothing(bench: Bench, claim: Claim) -> CallContext:
    """For a call that is refused before it looks at anything."""
    turn: Any = claim
    return CallContext(bench.deps, turn, 0)
