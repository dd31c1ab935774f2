"""What an administrator changes reaches the turns in hand, and the approvals that wait."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID

import pytest
from redis.asyncio import Redis

from chatd.core.reasons import SENTENCES
from chatd.core.work import Claim
from chatd.dev.valkey import Valkey
from chatd.queue import POLICY, PolicyMoves
from chatd.revoking import Approvals, PolicyWatch
from chatd.store.db import load
from chatd.turn.deps import Control
from chatd.turn.run import run_turn
from tests.seed import change_server
from tests.store.working import run_out
from tests.turn.bench import Bench, call
from tests.waiting import locked, one, until
from tests.workers.conftest import MakeRunner
from workers.runner import Runner
from workers.sweep import Sweeper

NEVER_S = 3600.0
DISABLED = "An administrator has disabled this server."
DENIED = "An administrator has denied this tool."


async def change(bench: Bench, **settings: Any) -> None:
    url = (await one(bench.seed.db, "SELECT url FROM mcp_server_configs"))["url"]
    settings = {"availability": "default_on", "url": url} | settings
    await change_server(bench.seed.db, bench.server_id, **settings)


def approvals(bench: Bench) -> Approvals:
    deps = bench.deps
    return Approvals(deps.db, deps.loader, deps.wakes, deps.publisher)


@asynccontextmanager
async def watching(
    bench: Bench, runner: Runner, poll_s: float, *, listen: bool
) -> AsyncGenerator[PolicyWatch]:
    """As a worker does it."""
    deps = bench.deps
    holders = (deps.sessions, deps.catalogue)
    watch = PolicyWatch(deps.db, approvals(bench), holders, runner.told, poll_s=poll_s)
    tasks = [asyncio.create_task(watch.run())]
    if listen:
        tasks.append(asyncio.create_task(watch.listen(bench.redis).run()))
        await subscribed(bench.redis)
    try:
        yield watch
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def subscribed(redis: Redis) -> None:
    async def heard() -> bool:
        return dict(await cast(Any, redis).pubsub_numsub(POLICY))[POLICY.encode()] >= 1

    await until(heard)


async def in_a_call(bench: Bench, runner: Runner) -> UUID:
    """A chat whose turn waits for the tool server, which takes a while; then it lists its tools."""
    chat_id = await bench.seed.chat_id("\n".join((call("slow", seconds=1), "/tools")))
    runner.wake()

    async def sent() -> bool:
        return bool(await bench.seed.db.fetch("SELECT 1 FROM tool_calls WHERE state = 'sent'"))

    await until(sent)
    return chat_id


async def the_end(bench: Bench, chat_id: UUID) -> str:
    """What the model says at last: the tools it was offered in its second step."""

    async def ended() -> bool:
        row = await one(bench.seed.db, "SELECT status FROM turns WHERE chat_id = $1", chat_id)
        return row["status"] == "completed"

    await until(ended)
    row = await one(
        bench.seed.db,
        "SELECT content->0->>'text' AS said FROM chat_messages ORDER BY id DESC LIMIT 1",
    )
    states = await bench.seed.db.fetch("SELECT state FROM tool_calls")
    assert [found["state"] for found in states] == ["done"], "a call in flight ends as ever"
    return row["said"]


async def test_a_push_reaches_a_turn_in_hand(bench: Bench, make_runner: MakeRunner) -> None:
    runner = make_runner(renew_s=NEVER_S)
    moves = PolicyMoves(bench.redis)
    moves.start()
    async with watching(bench, runner, NEVER_S, listen=True):
        chat_id = await in_a_call(bench, runner)
        await change(bench, tool_deny_list=("add",))
        moves.push()
        said = await the_end(bench, chat_id)
    await moves.close()
    assert "demo__append" in said
    assert "demo__add" not in said


async def test_without_redis_a_change_is_found_by_asking(
    bench: Bench, make_runner: MakeRunner, valkey: Valkey
) -> None:
    runner = make_runner(renew_s=NEVER_S)
    async with watching(bench, runner, 0.05, listen=False):
        chat_id = await in_a_call(bench, runner)
        valkey.kill()
        await change(bench, tool_deny_list=("add",))
        said = await the_end(bench, chat_id)
    await valkey.restart()
    assert "demo__add" not in said


async def test_a_listener_that_was_away_looks_when_it_is_back(
    bench: Bench, make_runner: MakeRunner, valkey: Valkey
) -> None:
    seen: list[int] = []
    runner = make_runner()
    deps = bench.deps
    watch = PolicyWatch(
        deps.db, approvals(bench), (), lambda state: seen.append(state.version), poll_s=NEVER_S
    )
    tasks = [
        asyncio.create_task(watch.run()),
        asyncio.create_task(watch.listen(bench.redis).run()),
    ]
    await subscribed(bench.redis)
    valkey.kill()
    await change(bench, tool_deny_list=("add",))
    await valkey.restart()

    async def found() -> bool:
        row = await one(bench.seed.db, "SELECT version FROM policy_state")
        return bool(seen) and seen[-1] == row["version"]

    await until(found)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert runner.busy == 0


async def test_a_raised_limit_lets_waiting_turns_run_and_an_end_the_next(
    bench: Bench, make_runner: MakeRunner
) -> None:
    """The second runs when the first has ended; nobody is woken but by that."""
    runner = make_runner(renew_s=NEVER_S)
    await bench.seed.db.fetch("UPDATE model_providers SET max_concurrent_turns = 1")
    async with watching(bench, runner, 0.05, listen=False):
        for _ in range(3):
            await bench.seed.chat("/say hello")
        runner.wake()

        async def all_ended() -> bool:
            rows = await bench.seed.db.fetch("SELECT 1 FROM turns WHERE status = 'completed'")
            return len(rows) == 3

        await until(all_ended)
    overlapping = await bench.seed.db.fetch(
        """SELECT 1 FROM turns a JOIN turns b
            ON a.id <> b.id AND b.started_at < a.finished_at AND a.started_at < b.finished_at"""
    )
    assert overlapping == []


# --- approvals


@pytest.fixture
async def parked(bench: Bench) -> Claim:
    """A turn that waits for somebody to approve its call."""
    await change(bench, require_approval="always")
    claim = await bench.run(call("append", text="x"), "/say done")
    assert (await bench.turn(claim))["status"] == "requires_action"
    return claim


def sweeper(bench: Bench) -> Sweeper:
    deps = bench.deps
    return Sweeper(
        deps.db,
        deps.wakes,
        deps.publisher,
        free=lambda: 1,
        wake=lambda: None,
        approvals=approvals(bench),
    )


async def sweep(bench: Bench) -> None:
    await approvals(bench).deny_refused()


async def denials(bench: Bench) -> list[Any]:
    """The audit lines of calls that nobody has denied in person."""
    rows = await bench.seed.db.fetch(
        """SELECT l.target_id, l.tool, l.server_id, l.after::text FROM audit_log l
        WHERE l.target_type = 'approval' AND l.action = 'deny' AND l.actor_id IS NULL"""
    )
    return [(row["tool"], row["server_id"], load(row["after"])) for row in rows]


async def item(bench: Bench) -> Any:
    return await one(bench.seed.db, "SELECT state, answer::text, answered_by FROM open_items")


async def go_on(bench: Bench, claim: Claim) -> list[str]:
    """Another worker takes the turn up; what was said in it."""
    again = await bench.seed.claim()
    assert again.turn_id == claim.turn_id
    assert await run_turn(bench.deps, again, Control()) == "completed"
    await bench.complete(claim)
    return await bench.told(claim)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"enabled": False}, DISABLED),
        ({"tool_deny_list": ("append",)}, DENIED),
        (
            {"access": "groups"},
            "This server is for groups that the chat's owner is not a member of.",
        ),
    ],
)
async def test_an_approval_that_nobody_needs_any_more_is_denied_and_the_model_told(
    bench: Bench, parked: Claim, settings: dict[str, Any], reason: str
) -> None:
    """The process that made the change died right after its commit: another does it."""
    await change(bench, require_approval="always", **settings)
    await sweep(bench)
    row = await item(bench)
    assert (row["state"], row["answered_by"]) == ("answered", None)
    assert reason in row["answer"]
    told = {"turn_id": str(parked.turn_id), "state": "answered", "decision": "deny"}
    assert await denials(bench) == [("append", bench.server_id, told)]
    assert f"-> {reason}" in await go_on(bench, parked)
    assert await bench.states(parked) == ["denied"]


@pytest.mark.parametrize(
    ("settings", "tool", "state"),
    [
        ({"tool_changes": "quarantine"}, "append", "answered"),
        ({"tool_changes": "quarantine"}, "add", "open"),
        ({"tool_changes": "hold"}, "append", "open"),
        # Another user's list may be the one that has changed.
        ({"tool_changes": "quarantine", "forward_coder_headers": True}, "append", "open"),
    ],
)
async def test_an_approval_of_a_tool_that_its_pin_withdraws_is_denied(
    bench: Bench, parked: Claim, settings: dict[str, Any], tool: str, state: str
) -> None:
    await bench.seed.db.fetch(
        "UPDATE tool_pins SET changed = '{}', changed_hash = 'x' WHERE tool_name = $1", tool
    )
    await change(bench, require_approval="always", **settings)
    await sweep(bench)
    row = await item(bench)
    assert row["state"] == state
    assert (SENTENCES["changed"] in (row["answer"] or "")) is (state == "answered")


async def test_an_approval_of_a_tool_without_its_pin_is_denied_in_quarantine(
    bench: Bench, parked: Claim
) -> None:
    """It counts as new, and new tools are quarantined."""
    await bench.seed.db.fetch("DELETE FROM tool_pins WHERE tool_name = 'append'")
    await change(bench, require_approval="always", tool_changes="quarantine")
    await sweep(bench)
    assert (await item(bench))["state"] == "answered"


async def test_a_passed_deadline_is_a_denial_of_nobodys(bench: Bench, parked: Claim) -> None:
    await bench.seed.db.fetch("UPDATE open_items SET deadline = clock_timestamp()")
    await sweeper(bench).sweep()
    told = {"turn_id": str(parked.turn_id), "state": "expired", "decision": "deny"}
    assert await denials(bench) == [("append", bench.server_id, told)]


async def test_a_sweeper_denies_and_meanwhile_mends_the_rest(
    bench: Bench, parked: Claim, database_url: str
) -> None:
    """The approval's chat is locked: whoever denies it waits, and no lost turn with it."""
    await bench.seed.chat_id("/say hello")
    lost = await bench.seed.claim()
    await change(bench, require_approval="always", enabled=False)
    async with locked(database_url, parked.chat_id) as holder:
        sweeping = asyncio.create_task(sweeper(bench).run())
        await holder.waiting(1)
        await run_out(bench.seed, lost)

        async def released() -> bool:
            return (await bench.turn(lost))["status"] == "pending"

        await until(released)
        assert (await item(bench))["state"] == "open"

    async def denied() -> bool:
        return (await item(bench))["state"] == "answered"

    await until(denied)
    sweeping.cancel()
    await asyncio.wait({sweeping})


async def test_one_that_cannot_be_read_keeps_no_other_from_it(bench: Bench, parked: Claim) -> None:
    other = await bench.run(call("append", text="y"), "/say done")
    await bench.seed.db.fetch(
        "UPDATE open_items SET data = data - 'server_id' WHERE turn_id = $1", parked.turn_id
    )
    await change(bench, require_approval="always", enabled=False)
    await sweep(bench)
    rows = await bench.seed.db.fetch("SELECT turn_id, state FROM open_items")
    states = {row["turn_id"]: row["state"] for row in rows}
    assert states == {parked.turn_id: "open", other.turn_id: "answered"}


async def test_a_deleted_server_is_no_server(bench: Bench, parked: Claim) -> None:
    await bench.seed.db.fetch("UPDATE policy_state SET version = version + 1")
    await bench.seed.db.fetch("DELETE FROM mcp_server_configs")
    await sweep(bench)
    assert "-> This server no longer exists." in await go_on(bench, parked)


async def test_other_changes_leave_approvals_open(bench: Bench, parked: Claim) -> None:
    await change(bench, require_approval="always", tool_deny_list=("add",))
    await sweep(bench)
    assert (await item(bench))["state"] == "open"
    assert (await bench.turn(parked))["status"] == "requires_action"


async def test_an_approval_asked_for_on_an_older_policy_is_found_as_well(
    bench: Bench, parked: Claim
) -> None:
    """Its turn had read policy before the change, and parked after everybody had looked."""
    watched = approvals(bench)
    await watched.deny_refused()
    await bench.seed.db.fetch(
        "UPDATE mcp_server_configs SET enabled = false, version = version + 1"
    )
    await watched.deny_refused()
    assert (await item(bench))["state"] == "answered"
    assert (await bench.turn(parked))["status"] == "pending"


async def test_two_that_look_at_once_answer_once(
    bench: Bench, parked: Claim, database_url: str
) -> None:
    await change(bench, require_approval="always", enabled=False)
    version = (await one(bench.seed.db, "SELECT version FROM chats"))["version"]
    async with locked(database_url, parked.chat_id) as holder:
        both = asyncio.gather(*(approvals(bench).deny_refused() for _ in range(2)))
        await holder.waiting(2)
    await both
    assert (await one(bench.seed.db, "SELECT version FROM chats"))["version"] == version + 1


async def test_one_that_was_answered_meanwhile_stays_as_it_is(
    bench: Bench, parked: Claim, database_url: str
) -> None:
    await change(bench, require_approval="always", enabled=False)
    async with locked(database_url, parked.chat_id) as holder:
        looking = asyncio.create_task(approvals(bench).deny_refused())
        await holder.waiting(1)
        await holder.execute("UPDATE open_items SET state = 'answered', answer = '{}'")
    await looking
    assert (await item(bench))["answer"] == "{}"


async def test_one_that_policy_allows_again_stays_open(
    bench: Bench, parked: Claim, database_url: str
) -> None:
    await change(bench, require_approval="always", enabled=False)
    async with locked(database_url, parked.chat_id) as holder:
        looking = asyncio.create_task(approvals(bench).deny_refused())
        await holder.waiting(1)
        await change(bench, require_approval="always")
    await looking
    assert (await item(bench))["state"] == "open"
