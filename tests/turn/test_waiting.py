"""Calls that wait for somebody: approvals, and tools that the client runs."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from chatd.answering import Answers
from chatd.core.chats import ChatPatch
from chatd.core.errors import BadRequest, Conflict, NotFound
from chatd.core.tools import JsonObject
from chatd.core.work import Claim
from chatd.store.editing import patch_chat
from chatd.store.items import expire_item, find_overdue
from chatd.turn.calls import MAX_ASKED
from chatd.turn.deps import Control
from chatd.turn.run import run_turn
from tests.seed import change_server, make_user
from tests.turn.bench import Bench, at_once, call
from tests.waiting import one, until

APPEND = call("append", text="approved")


async def demands(bench: Bench, **settings: Any) -> None:
    """The demo server's administrator wants people to be asked."""
    url = (await one(bench.seed.db, "SELECT url FROM mcp_server_configs"))["url"]
    settings = {"require_approval": "always"} | settings
    await change_server(
        bench.seed.db, bench.server_id, url=url, availability="default_on", **settings
    )


def answers(bench: Bench) -> Answers:
    return Answers(bench.seed.db, bench.deps.wakes, bench.deps.publisher)


async def asked(bench: Bench, claim: Claim) -> list[Any]:
    return (await bench.turn(claim))["open_items"]


async def decide(bench: Bench, claim: Claim, decision: str, **more: Any) -> None:
    (item,) = await asked(bench, claim)
    answer = {"decision": decision, **more}
    await answers(bench).answer(
        bench.seed.actor, claim.chat_id, UUID(item["id"]), "approval", answer
    )


async def forget_what_was_asked(bench: Bench) -> None:
    """As if it had been another definition of the tool."""
    await bench.seed.db.fetch(
        """UPDATE open_items SET memory = jsonb_set(memory, '{definition_hash}', '"other"')"""
    )


async def go_on(bench: Bench, claim: Claim) -> str:
    """Another worker takes the turn up."""
    again = await bench.seed.claim()
    assert again.turn_id == claim.turn_id
    return await run_turn(bench.deps, again, Control())


async def test_a_call_that_needs_approval_parks_the_turn_and_says_what_it_would_do(
    bench: Bench, appended: Callable[[str], int]
) -> None:
    await demands(bench)
    before = appended("approved")
    claim = await bench.run(APPEND, "/say done")
    turn = await bench.turn(claim)
    assert turn["status"] == "requires_action"
    (item,) = turn["open_items"]
    assert (item["kind"], item["tool_name"]) == ("approval", "demo__append")
    assert item["args"] == '{"text":"approved"}'
    assert (item["server"], item["original_name"]) == ("demo", "append")
    assert "memory" not in item
    assert await bench.states(claim) == ["intended"]
    assert appended("approved") == before


async def test_an_approved_call_is_made_once_and_the_turn_goes_on(
    bench: Bench, appended: Callable[[str], int]
) -> None:
    await demands(bench)
    before = appended("approved")
    claim = await bench.run(APPEND, "/say done")
    await decide(bench, claim, "approve")
    assert (await bench.turn(claim))["status"] == "pending"
    assert await go_on(bench, claim) == "completed"
    assert appended("approved") == before + 1
    assert await bench.states(claim) == ["done"]
    assert (await bench.told(claim))[-1] == "done"
    await bench.complete(claim)


async def test_the_model_reads_why_a_call_was_denied(
    bench: Bench, appended: Callable[[str], int]
) -> None:
    await demands(bench)
    before = appended("approved")
    claim = await bench.run(APPEND, "/say done")
    await decide(bench, claim, "deny", reason="wrong file")
    assert await go_on(bench, claim) == "completed"
    assert "-> The user denied this call: wrong file" in await bench.told(claim)
    assert await bench.states(claim) == ["denied"]
    assert appended("approved") == before


async def test_the_same_answer_twice_is_one_and_another_is_refused(bench: Bench) -> None:
    await demands(bench)
    claim = await bench.run(APPEND)
    (item,) = await asked(bench, claim)
    item_id = UUID(item["id"])
    mine = (bench.seed.actor, claim.chat_id, item_id, "approval")
    await answers(bench).answer(*mine, {"decision": "approve"})
    await answers(bench).answer(*mine, {"decision": "approve"})
    with pytest.raises(Conflict):
        await answers(bench).answer(*mine, {"decision": "deny"})
    row = await one(bench.seed.db, "SELECT answer->>'decision' AS said FROM open_items")
    assert row["said"] == "approve"


async def test_nobody_else_can_answer(bench: Bench) -> None:
    await demands(bench)
    claim = await bench.run(APPEND)
    (item,) = await asked(bench, claim)
    other = await make_user(bench.seed.db, "eve", role="admin")
    with pytest.raises(NotFound):
        await answers(bench).answer(
            other, claim.chat_id, UUID(item["id"]), "approval", {"decision": "approve"}
        )
    assert (await bench.turn(claim))["status"] == "requires_action"


async def test_an_approval_nobody_gives_expires_as_a_refusal(bench: Bench) -> None:
    await demands(bench)
    claim = await bench.run(APPEND, "/say done")
    await bench.seed.db.fetch("UPDATE open_items SET deadline = clock_timestamp()")
    ((item_id, chat_id),) = await find_overdue(bench.seed.db)
    assert await expire_item(bench.seed.db, item_id, chat_id) is not None
    assert await expire_item(bench.seed.db, item_id, chat_id) is None
    assert await go_on(bench, claim) == "completed"
    assert "-> Nobody approved this call in time." in await bench.told(claim)
    with pytest.raises(Conflict):
        await answers(bench).answer(
            bench.seed.actor, chat_id, item_id, "approval", {"decision": "approve"}
        )


async def test_an_approval_that_comes_too_late_is_refused_though_no_sweeper_was_here_yet(
    bench: Bench, appended: Callable[[str], int]
) -> None:
    await demands(bench)
    before = appended("approved")
    claim = await bench.run(APPEND, "/say done")
    await bench.seed.db.fetch("UPDATE open_items SET deadline = clock_timestamp()")
    with pytest.raises(Conflict):
        await decide(bench, claim, "approve")
    ((item_id, chat_id),) = await find_overdue(bench.seed.db)
    await expire_item(bench.seed.db, item_id, chat_id)
    assert await go_on(bench, claim) == "completed"
    assert appended("approved") == before


async def test_policy_is_asked_again_after_the_approval(
    bench: Bench, appended: Callable[[str], int]
) -> None:
    await demands(bench)
    before = appended("approved")
    claim = await bench.run(APPEND, "/say done")
    await decide(bench, claim, "approve")
    await demands(bench, tool_deny_list=("append",))
    assert await go_on(bench, claim) == "completed"
    assert appended("approved") == before


async def test_an_approval_is_for_this_definition_and_these_arguments_only(bench: Bench) -> None:
    await demands(bench)
    claim = await bench.run(APPEND, "/say done")
    await decide(bench, claim, "approve")
    await forget_what_was_asked(bench)
    assert await go_on(bench, claim) == "requires_action"
    assert len(await asked(bench, claim)) == 1


async def test_a_no_counts_whatever_the_tool_has_become(bench: Bench) -> None:
    await demands(bench)
    claim = await bench.run(APPEND, "/say done")
    await decide(bench, claim, "deny", reason="never")
    await forget_what_was_asked(bench)
    assert await go_on(bench, claim) == "completed"
    assert "-> The user denied this call: never" in await bench.told(claim)


async def test_a_tool_that_changes_after_each_approval_is_given_up(
    bench: Bench, appended: Callable[[str], int]
) -> None:
    await demands(bench)
    before = appended("approved")
    claim = await bench.run(APPEND, "/say done")
    for ended in (*["requires_action"] * (MAX_ASKED - 1), "completed"):
        await decide(bench, claim, "approve")
        await forget_what_was_asked(bench)
        assert await go_on(bench, claim) == ended
    told = await bench.told(claim)
    assert "-> The tool has changed each time this call was approved." in told
    assert appended("approved") == before


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({"require_approval": "never"}, "completed"),
        ({"require_approval": "unless_read_only"}, "requires_action"),
        ({"require_approval": "unless_read_only", "trust_annotations": True}, "completed"),
        ({"tool_settings": {"add": {"require_approval": "never"}}}, "completed"),
        (
            {
                "require_approval": "never",
                "tool_settings": {"add": {"require_approval": "always"}},
            },
            "requires_action",
        ),
    ],
)
async def test_whether_a_call_needs_approval_is_the_tools_or_its_servers_setting(
    bench: Bench, settings: JsonObject, status: str
) -> None:
    await demands(bench, **settings)
    claim = await bench.run(call("add", a=1, b=2), "/say done")
    assert (await bench.turn(claim))["status"] == status


async def test_the_other_calls_of_the_step_are_made_and_kept_meanwhile(
    bench: Bench, appended: Callable[[str], int]
) -> None:
    await demands(
        bench,
        require_approval="never",
        tool_settings={"append": {"require_approval": "always"}},
    )
    claim = await bench.run(at_once(APPEND, call("add", a=1, b=2)), "/say done")
    assert await bench.states(claim) == ["intended", "done"]
    await decide(bench, claim, "approve")
    assert await go_on(bench, claim) == "completed"
    assert await bench.states(claim) == ["done", "done"]
    await bench.complete(claim)


async def test_archiving_closes_what_a_turn_waits_for(bench: Bench) -> None:
    await demands(bench)
    claim = await bench.run(APPEND)
    await patch_chat(bench.seed.db, bench.seed.actor, claim.chat_id, ChatPatch(archived=True))
    turn = await bench.turn(claim)
    assert (turn["status"], turn["open_items"]) == ("interrupted", [])
    assert await bench.states(claim) == ["cancelled"]
    await bench.complete(claim)


async def test_waiting_does_not_count_as_running(bench: Bench) -> None:
    await demands(bench)
    claim = await bench.run(APPEND, "/say done")
    await bench.seed.db.fetch(
        "UPDATE turns SET parked_at = parked_at - interval '2 days',"
        " started_at = started_at - interval '2 days'"
    )
    await decide(bench, claim, "approve")
    assert await go_on(bench, claim) == "completed"


# --- tools that the client runs


async def offers(bench: Bench, claim_script: tuple[str, ...], **tools: Any) -> Claim:
    """A chat whose client has a tool `pick`."""
    await bench.seed.chat("\n".join(claim_script))
    await bench.seed.db.fetch(
        "UPDATE chats SET dynamic_tools = "
        """'[{"name": "pick", "description": "", "input_schema": {"type": "object"}}]'"""
    )
    claim = await bench.seed.claim()
    await run_turn(bench.deps, claim, Control())
    return claim


PICK = '/call pick {"of":2}'


async def test_the_clients_own_tool_parks_the_turn_until_its_result_comes(bench: Bench) -> None:
    claim = await offers(bench, (PICK, "/echo"))
    (item,) = await asked(bench, claim)
    assert (item["kind"], item["tool_name"], item["args"]) == ("tool_result", "pick", '{"of":2}')
    assert await bench.states(claim) == ["waiting"]
    result = {"text": "the left one", "is_error": False}
    await answers(bench).tool_results(
        bench.seed.actor, claim.chat_id, {item["tool_call_id"]: result}
    )
    assert await go_on(bench, claim) == "completed"
    assert await bench.told(claim) == ['pick({"of":2})', "-> the left one", "the left one"]
    assert await bench.states(claim) == ["done"]


async def test_all_open_calls_are_answered_together_and_nothing_else(bench: Bench) -> None:
    claim = await offers(bench, (PICK + ' & pick {"of":3}', "/say done"))
    first, second = [item["tool_call_id"] for item in await asked(bench, claim)]
    result = {"text": "x", "is_error": False}
    send = answers(bench).tool_results
    for wrong in ({first: result}, {first: result, second: result, "other": result}, {}):
        with pytest.raises(BadRequest):
            await send(bench.seed.actor, claim.chat_id, wrong)
    assert (await bench.turn(claim))["status"] == "requires_action"
    await send(bench.seed.actor, claim.chat_id, {first: result, second: result})
    with pytest.raises(Conflict):
        await send(bench.seed.actor, claim.chat_id, {first: result, second: result})


async def test_a_client_that_does_not_answer_in_time_is_an_error_result(bench: Bench) -> None:
    claim = await offers(bench, (PICK, "/say done"))
    await bench.seed.db.fetch("UPDATE open_items SET deadline = clock_timestamp()")
    for item_id, chat_id in await find_overdue(bench.seed.db):
        await expire_item(bench.seed.db, item_id, chat_id)
    assert await go_on(bench, claim) == "completed"
    assert "-> The client did not answer this call in time." in await bench.told(claim)


async def test_a_worker_that_dies_while_it_takes_the_answer_loses_nothing(bench: Bench) -> None:
    claim = await offers(bench, (PICK, "/echo"))
    (item,) = await asked(bench, claim)
    result = {"text": "the left one", "is_error": False}
    await answers(bench).tool_results(
        bench.seed.actor, claim.chat_id, {item["tool_call_id"]: result}
    )
    lost = await bench.seed.claim()
    await bench.again(lost)
    assert (await bench.told(claim))[-1] == "the left one"


async def test_a_stop_that_comes_while_the_turn_parks_wins(bench: Bench) -> None:
    claim = await bench.claim(call("slow", seconds=5), "/say x")
    running = bench.start(claim)
    await bench.until_state(claim, "sent")
    await patch_chat(bench.seed.db, bench.seed.actor, claim.chat_id, ChatPatch(archived=True))
    running.stop("interrupt")
    assert await running.task == "interrupted"

    async def ended() -> bool:
        return (await bench.turn(claim))["status"] == "interrupted"

    await until(ended)
