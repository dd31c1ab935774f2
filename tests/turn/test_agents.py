"""Sub-agents: started, waited for, spoken to and lost by the turns that have them."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any
from uuid import UUID

import orjson
import pytest

from chatd.core.chats import ChatPatch
from chatd.core.config import ModelOverrides
from chatd.core.errors import BadRequest
from chatd.core.work import Claim
from chatd.store.chats import get_chat
from chatd.store.config import write_setting
from chatd.store.db import Database
from chatd.store.editing import delete_chat, patch_chat
from chatd.store.ids import new_id
from chatd.store.items import expire_item, find_overdue
from chatd.store.queueing import interrupt_chat
from chatd.store.spawning import NewAgent, spawn as spawn_in_store
from chatd.tools import BUILTINS
from chatd.turn.builtins import HANDLERS
from chatd.turn.deps import Control
from chatd.turn.run import run_turn
from tests.families import Family, spawn, tool, wait
from tests.seed import make_model
from tests.store.working import finish, lose, run_out
from tests.turn.bench import Bench, at_once, call
from tests.waiting import one, transaction, until
from workers.runner import Runner
from workers.sweep import Sweeper


@pytest.fixture
def family(bench: Bench) -> Family:
    return Family(bench.seed)


@pytest.fixture
async def runner(bench: Bench, database_url: str) -> AsyncGenerator[Runner]:
    """A worker with room for one turn, whom no wake reaches."""
    async with AsyncExitStack() as stack:
        renewals = Database(database_url, pool_size=1)
        stack.push_async_callback(renewals.close)
        runner = Runner(bench.deps, renewals, worker_id="test-worker", capacity=1)
        stack.push_async_callback(runner.close)
        stack.push_async_callback(partial(runner.drain, 0))
        runner.start()
        yield runner


async def play(bench: Bench, family: Family, *script: str, **turn: Any) -> Claim:
    """The root's turn, until it ends or parks."""
    claim = await family.begin(*script, **turn)
    await run_turn(bench.deps, claim, Control())
    return claim


async def go_on(bench: Bench, chat_id: UUID) -> str:
    """The next runnable turn, which has to be this chat's."""
    claim = await bench.seed.claim()
    assert claim.chat_id == chat_id
    return await run_turn(bench.deps, claim, Control())


async def sweep(bench: Bench) -> None:
    deps = bench.deps
    sweeper = Sweeper(deps.db, deps.wakes, deps.publisher, free=lambda: 1, wake=lambda: None)
    await sweeper.sweep()


async def results(bench: Bench, claim: Claim) -> list[Any]:
    """What the tools answered, as far as it is JSON."""
    told = [line[3:] for line in await bench.told(claim) if line.startswith("-> ")]
    return [orjson.loads(line) if line.startswith(("{", "[")) else line for line in told]


async def last_result(bench: Bench, claim: Claim) -> Any:
    return (await results(bench, claim))[-1]


# --- waiting


async def test_a_parent_that_waits_holds_no_slot(
    bench: Bench, family: Family, runner: Runner
) -> None:
    await family.submit(spawn("/say found it"), wait(family.child()), "/echo")
    runner.wake()

    async def ended() -> bool:
        return await family.status() == "completed"

    await until(ended)
    claim = await family.claimed()
    assert await last_result(bench, claim) == {
        "chat_id": str(family.child()), "status": "completed", "text": "found it",
    }  # fmt: skip
    await bench.complete(claim)


async def test_a_turn_that_waits_for_agents_only_is_shown_as_running(
    bench: Bench, family: Family
) -> None:
    claim = await play(bench, family, spawn("/say x"), wait(family.child()), "/say done")
    assert await family.status() == "requires_action"
    turn = await bench.turn(claim)
    assert turn["status"] == "running"
    (item,) = turn["open_items"]
    assert (item["kind"], item["child_chat_id"]) == ("child", str(family.child()))
    chat = await get_chat(bench.seed.db, bench.seed.actor.user_id, family.chat_id)
    assert chat["status"] == "running"


async def test_two_agents_work_while_their_parent_waits_for_both(
    bench: Bench, family: Family
) -> None:
    claim = await play(
        bench,
        family,
        at_once(spawn("/say one"), spawn("/say two")),
        at_once(wait(family.child(1, 1)), wait(family.child(1, 2))),
        "/say done",
    )
    for _ in range(2):
        assert await family.status() == "requires_action"
        await run_turn(bench.deps, await bench.seed.claim(), Control())
    assert await go_on(bench, family.chat_id) == "completed"
    assert [result["text"] for result in (await results(bench, claim))[2:]] == ["one", "two"]
    await bench.complete(claim)


async def test_waiting_for_an_agent_that_has_ended_parks_nothing(
    bench: Bench, family: Family
) -> None:
    claim = await family.begin(
        spawn("/say found it"), call("slow", seconds=0), wait(family.child()), "/say done"
    )
    agent = NewAgent(family.child(), new_id(), "general", "/say found it")
    await spawn_in_store(bench.seed.db, claim, agent)
    assert await go_on(bench, family.child()) == "completed"
    assert await run_turn(bench.deps, claim, Control()) == "completed"
    assert (await last_result(bench, claim))["text"] == "found it"


async def test_a_failed_agent_says_why(bench: Bench, family: Family) -> None:
    claim = await play(bench, family, spawn("/fail 400"), wait(family.child()), "/say done")
    assert await go_on(bench, family.child()) == "failed"
    assert await go_on(bench, family.chat_id) == "completed"
    result = await last_result(bench, claim)
    assert result["status"] == "failed"
    assert result["error"]


async def test_an_agent_that_needs_the_user_lets_its_parent_go_on(
    bench: Bench, family: Family
) -> None:
    claim = await play(bench, family, spawn("/call pick {}"), wait(family.child()), "/say done")
    await bench.seed.db.fetch(
        "UPDATE chats SET dynamic_tools = "
        """'[{"name": "pick", "description": "", "input_schema": {"type": "object"}}]'"""
        " WHERE id = $1",
        family.child(),
    )
    assert await go_on(bench, family.child()) == "requires_action"
    assert await go_on(bench, family.chat_id) == "completed"
    result = await last_result(bench, claim)
    assert result["status"] == "requires_action"
    assert "user" in result["reason"]


async def test_a_wait_that_takes_too_long_ends_and_the_agent_works_on(
    bench: Bench, family: Family
) -> None:
    slow = wait(family.child(), timeout_seconds=1)
    claim = await play(bench, family, spawn("/say x"), slow, "/say done")
    await bench.seed.db.fetch("UPDATE open_items SET deadline = clock_timestamp()")
    ((item_id, chat_id),) = await find_overdue(bench.seed.db)
    assert await expire_item(bench.seed.db, item_id, chat_id) is not None
    child = await bench.seed.claim()
    assert child.chat_id == family.child()
    assert await go_on(bench, family.chat_id) == "completed"
    result = await last_result(bench, claim)
    assert (result["status"], result["text"]) == ("running", "")
    assert "still at work" in result["reason"]
    assert await family.status(family.child()) == "running"


async def test_looking_waits_for_nothing(bench: Bench, family: Family) -> None:
    claim = await play(
        bench, family, spawn("/say x"), wait(family.child(), timeout_seconds=0), "/say done"
    )
    assert await family.status() == "completed"
    assert (await last_result(bench, claim))["status"] == "running"


async def test_a_message_of_the_user_ends_the_wait(bench: Bench, family: Family) -> None:
    claim = await play(bench, family, spawn("/say x"), wait(family.child()), "/say done")
    await bench.seed.send(family.chat_id, "/say next")
    await sweep(bench)
    child = await bench.seed.claim()
    assert child.chat_id == family.child()
    assert await go_on(bench, family.chat_id) == "completed"
    result = await last_result(bench, claim)
    assert result["status"] == "running"
    assert "user has sent a message" in result["reason"]


async def test_no_wait_begins_behind_a_message_of_the_user(bench: Bench, family: Family) -> None:
    claim = await family.begin(spawn("/say x"), wait(family.child()), "/say done")
    await bench.seed.send(family.chat_id, "/say next")
    assert await run_turn(bench.deps, claim, Control()) == "completed"
    assert "user has sent a message" in (await last_result(bench, claim))["reason"]


# --- what ends without telling its parent


async def test_a_sweeper_finds_an_agent_that_ended_unseen(bench: Bench, family: Family) -> None:
    claim = await play(bench, family, spawn("/say x"), wait(family.child()), "/say done")
    child = await bench.seed.claim()
    await sweep(bench)
    assert await family.status() == "requires_action"
    await finish(bench.seed, child)
    await sweep(bench)
    assert await go_on(bench, family.chat_id) == "completed"
    assert (await last_result(bench, claim))["status"] == "completed"


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (interrupt_chat, "interrupted"),
        (partial(patch_chat, patch=ChatPatch(archived=True)), "archived"),
        (delete_chat, "deleted"),
    ],
)
async def test_an_agent_stopped_from_outside_ends_the_wait(
    bench: Bench, family: Family, command: Any, status: str
) -> None:
    claim = await play(bench, family, spawn("/say x"), wait(family.child()), "/say done")
    await command(bench.seed.db, bench.seed.actor, family.child())
    await sweep(bench)
    assert await go_on(bench, family.chat_id) == "completed"
    assert (await last_result(bench, claim))["status"] == status


async def test_an_agent_whose_row_is_gone_ends_the_wait(bench: Bench, family: Family) -> None:
    claim = await play(bench, family, spawn("/say x"), wait(family.child()), "/say done")
    await bench.seed.db.fetch("DELETE FROM chats WHERE id = $1", family.child())
    await sweep(bench)
    assert await go_on(bench, family.chat_id) == "completed"
    assert (await last_result(bench, claim))["status"] == "deleted"


async def test_an_agent_lost_for_good_ends_the_wait(bench: Bench, family: Family) -> None:
    claim = await play(bench, family, spawn("/say x"), wait(family.child()), "/say done")
    for _ in range(3):
        assert await family.status() == "requires_action"
        await run_out(bench.seed, await bench.seed.claim())
        await sweep(bench)
    assert await go_on(bench, family.chat_id) == "completed"
    assert (await last_result(bench, claim))["status"] == "failed"


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (interrupt_chat, "interrupted"),
        (partial(patch_chat, patch=ChatPatch(archived=True)), "interrupted"),
        (delete_chat, "cancelled"),
    ],
)
async def test_whoever_stops_the_parent_stops_its_agents(
    bench: Bench, family: Family, command: Any, status: str
) -> None:
    await play(bench, family, spawn("/say x"), wait(family.child()), "/say done")
    await command(bench.seed.db, bench.seed.actor, family.chat_id)
    assert await family.status() == status
    assert await family.status(family.child()) == status
    open_items = await one(bench.seed.db, "SELECT count(*) FROM open_items WHERE state = 'open'")
    assert open_items[0] == 0


# --- crashes


async def test_a_worker_lost_before_the_agent_was_kept_starts_it_once(
    bench: Bench, family: Family, database_url: str
) -> None:
    claim = await family.begin(spawn("/say x"), "/say done")
    async with transaction(database_url) as holder:
        await holder.execute("SELECT 1 FROM users FOR UPDATE")  # whom a new chat refers to
        running = bench.start(claim)
        await holder.waiting()
        running.stop("lost")
        assert await running.task == "lost"
    assert await bench.states(claim) == ["sent"]
    assert await family.count() == 0
    await lose(bench.seed, claim)
    again = await bench.seed.claim()
    await run_turn(bench.deps, again, Control())
    assert await family.count() == 1


async def test_a_worker_lost_after_the_agent_was_kept_does_not_start_another(
    bench: Bench, family: Family
) -> None:
    claim = await family.begin(spawn("/say x"), "/say done")
    agent = NewAgent(family.child(), new_id(), "general", "/say x")
    await spawn_in_store(bench.seed.db, claim, agent)
    assert await run_turn(bench.deps, claim, Control()) == "completed"
    assert await family.count() == 1
    (result,) = await results(bench, claim)
    assert result == {"chat_id": str(family.child()), "title": "/say x", "status": "pending"}


async def test_a_worker_lost_while_it_takes_the_answer_tells_it_all_the_same(
    bench: Bench, family: Family
) -> None:
    claim = await play(bench, family, spawn("/say x"), wait(family.child()), "/say done")
    await go_on(bench, family.child())
    lost = await bench.seed.claim()
    await bench.again(lost)
    assert (await last_result(bench, claim))["text"] == "x"
    await bench.complete(claim)


# --- what an agent is


async def test_an_agent_has_its_parents_world(bench: Bench, family: Family) -> None:
    await play(bench, family, spawn("/tools", title="Look around"), "/say done")
    chat = await get_chat(bench.seed.db, bench.seed.actor.user_id, family.child())
    assert (chat["parent_chat_id"], chat["root_chat_id"]) == (str(family.chat_id),) * 2
    assert chat["title"] == "Look around"
    assert chat["mcp_server_ids"] == [str(bench.server_id)]
    assert chat["last_model_config_id"] == str(bench.seed.model_id)


async def test_an_agent_is_offered_no_agents_of_its_own(bench: Bench, family: Family) -> None:
    claim = await play(bench, family, spawn("/tools"), wait(family.child()), "/say done")
    await go_on(bench, family.child())
    await go_on(bench, family.chat_id)
    offered = (await last_result(bench, claim))["text"]
    assert "demo__add" in offered
    assert "read_result" in offered
    for name in ("spawn_agent", "wait_agent", "message_agent", "interrupt_agent", "list_agents"):
        assert name not in offered


async def test_an_agent_of_a_planning_chat_plans_without_servers(
    bench: Bench, family: Family
) -> None:
    claim = await play(
        bench, family, spawn("/tools"), wait(family.child()), "/say done", plan_mode="plan"
    )
    await go_on(bench, family.child())
    await go_on(bench, family.chat_id)
    assert "demo__" not in (await last_result(bench, claim))["text"]
    row = await one(bench.seed.db, "SELECT plan_mode FROM chats WHERE id = $1", family.child())
    assert row["plan_mode"] == "plan"


async def test_an_agent_that_explores_keeps_its_servers(bench: Bench, family: Family) -> None:
    await play(bench, family, spawn("/tools", "explore"), "/say done")
    seed, child = bench.seed, family.child()
    with pytest.raises(BadRequest, match="cannot be changed"):
        await patch_chat(seed.db, seed.actor, child, ChatPatch(mcp_server_ids=()))
    with pytest.raises(BadRequest, match="cannot be changed"):
        await seed.send(child, mcp_server_ids=())
    assert (await seed.send(child, mcp_server_ids=(bench.server_id,))).turn["status"] == "queued"


@pytest.mark.parametrize("kind", ["general", "explore"])
async def test_administrators_choose_the_model_for_agents(
    bench: Bench, family: Family, scripted_model: Any, kind: str
) -> None:
    model_id = await make_model(bench.seed.db, scripted_model.url)
    overrides = ModelOverrides.model_validate({kind: model_id}).model_dump(mode="json")
    async with bench.seed.db.transaction() as session:
        await write_setting(session, "model_overrides", overrides, bench.seed.actor.user_id)
    other = {"general": "explore", "explore": "general"}[kind]
    await play(bench, family, at_once(spawn("/say x", kind), spawn("/say x", other)), "/say done")
    models = [
        (await get_chat(bench.seed.db, bench.seed.actor.user_id, family.child(1, position)))[
            "last_model_config_id"
        ]
        for position in (1, 2)
    ]
    assert models == [str(model_id), str(bench.seed.model_id)]


# --- speaking to agents, stopping them, listing them


async def test_a_message_starts_an_idle_agent_again(bench: Bench, family: Family) -> None:
    child = family.child()
    claim = await play(
        bench,
        family,
        spawn("/say one"),
        wait(child),
        tool("message_agent", chat_id=str(child), message="/say two"),
        wait(child),
        "/say done",
    )
    for chat_id in (child, family.chat_id, child, family.chat_id):
        await go_on(bench, chat_id)
    told = await results(bench, claim)
    assert told[2]["status"] == "pending"
    assert [told[1]["text"], told[3]["text"]] == ["one", "two"]


@pytest.mark.parametrize(("interrupt", "statuses"), [(False, "pq"), (True, "ip")])
async def test_a_message_to_a_busy_agent_waits_or_interrupts(
    bench: Bench, family: Family, interrupt: bool, statuses: str
) -> None:
    child = family.child()
    message = tool("message_agent", chat_id=str(child), message="/say two", interrupt=interrupt)
    await play(bench, family, spawn("/say one"), message, "/say done")
    rows = await bench.seed.db.fetch(
        "SELECT status FROM turns WHERE chat_id = $1 ORDER BY position", child
    )
    assert "".join(row["status"][0] for row in rows) == statuses


async def test_an_interrupted_agent_stops_and_keeps_its_queue(bench: Bench, family: Family) -> None:
    child = family.child()
    claim = await play(
        bench, family, spawn("/say one"), tool("interrupt_agent", chat_id=str(child)), "/say done"
    )
    assert await family.status(child) == "interrupted"
    assert (await last_result(bench, claim))["status"] == "interrupted"


async def test_agents_are_listed(bench: Bench, family: Family) -> None:
    claim = await play(
        bench,
        family,
        at_once(spawn("/say one", title="First"), spawn("/say two", "explore")),
        at_once(wait(family.child(1, 1)), wait(family.child(1, 2))),
        tool("list_agents"),
        "/say done",
    )
    for _ in range(3):
        await run_turn(bench.deps, await bench.seed.claim(), Control())
    listed = {agent["chat_id"]: agent for agent in await last_result(bench, claim)}
    assert listed[str(family.child(1, 1))] == {
        "chat_id": str(family.child(1, 1)),
        "title": "First",
        "type": "general",
        "status": "completed",
        "last_text": "one",
    }
    assert listed[str(family.child(1, 2))]["type"] == "explore"


@pytest.mark.parametrize("name", ["wait_agent", "message_agent", "interrupt_agent"])
async def test_only_own_agents_can_be_addressed(bench: Bench, family: Family, name: str) -> None:
    foreign = await bench.seed.claimed("/say x")
    more = {"message": "/say y"} if name == "message_agent" else {}
    for chat_id in (foreign.chat_id, family.chat_id):
        mine = Family(bench.seed) if chat_id == foreign.chat_id else family
        claim = await play(bench, mine, tool(name, chat_id=str(chat_id), **more), "/say done")
        (result,) = await results(bench, claim)
        assert result.startswith("There is no sub-agent of this conversation")
    row = await one(bench.seed.db, "SELECT count(*) FROM turns WHERE chat_id = $1", foreign.chat_id)
    assert row[0] == 1


async def test_asking_again_and_again_is_no_loop(bench: Bench, family: Family) -> None:
    looks = [wait(family.child(), timeout_seconds=0)] * 6
    claim = await play(bench, family, spawn("/say x"), *looks, "/say done")
    assert await family.status() == "completed"
    assert all(result["status"] for result in (await results(bench, claim))[1:])


def test_every_built_in_tool_has_a_handler() -> None:
    assert HANDLERS.keys() == {tool.spec.name for tool in BUILTINS}
