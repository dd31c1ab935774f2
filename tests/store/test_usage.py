"""The ledger: a line for every model call, whatever became of its answer."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from chatd.core.chats import Actor
from chatd.core.errors import LeaseLost, NotFound
from chatd.core.messages import Usage
from chatd.core.usage import Spent, estimated_usage
from chatd.store import work
from chatd.store.sweeping import expire_turn
from chatd.store.usage import chat_usage, record_usage
from tests.seed import Seed, answer, make_user
from tests.spent import kinds, ledger, priced
from tests.store.working import CALLS, finish, lose, outcome, result, run_out

USED = Usage(
    input_tokens=100,
    output_tokens=20,
    total_tokens=120,
    reasoning_tokens=5,
    cache_creation_tokens=7,
    cache_read_tokens=30,
)


async def test_a_worker_without_its_lease_adds_no_line(seed: Seed) -> None:
    claim = await seed.claimed()
    await run_out(seed, claim)
    await expire_turn(seed.db, claim.turn_id, claim.chat_id)
    before = await kinds(seed.db, claim.chat_id)
    with pytest.raises(LeaseLost):
        await finish(seed, claim, replace(answer("no"), usage=USED))
    assert await kinds(seed.db, claim.chat_id) == before


async def test_each_answer_is_one_line_and_results_are_none(seed: Seed) -> None:
    claim = await seed.claimed()
    await seed.send(claim.chat_id)
    step = replace(
        answer("let me see", 1, *CALLS), usage=USED, cost_micros=7, model_config_id=seed.model_id
    )
    await work.commit_step(seed.db, claim, [step], CALLS, [], None)
    await work.commit_results(seed.db, claim, [result(1), result(2)], [], [])
    await finish(seed, claim, replace(answer("3", 2), usage=USED))
    first, second = await ledger(seed.db, claim.chat_id)
    assert {name: first[name] for name in USED} == dict(USED)
    assert (first["kind"], first["cost_micros"], first["estimated"]) == ("step", 7, False)
    assert (first["owner_id"], first["turn_id"]) == (seed.actor.user_id, claim.turn_id)
    assert first["model_config_id"] == seed.model_id
    assert (second["cost_micros"], second["model_config_id"]) == (None, None)


async def test_an_answer_whose_usage_is_not_told_is_not_invented(seed: Seed) -> None:
    claim = await seed.claimed()
    await finish(seed, claim, answer("hello"))
    assert await ledger(seed.db, claim.chat_id) == []


async def test_a_lost_worker_costs_one_estimated_line(seed: Seed) -> None:
    await priced(seed)
    claim = await seed.claimed()
    step = replace(answer("let me see", 1, *CALLS), usage=USED)
    await work.commit_step(seed.db, claim, [step], CALLS, [], None)
    results, outcomes = [result(1), result(2)], [outcome(1), outcome(2)]
    await work.commit_results(seed.db, claim, results, outcomes, [])
    await lose(seed, claim)
    assert await expire_turn(seed.db, claim.turn_id, claim.chat_id) is None
    _, lost = await ledger(seed.db, claim.chat_id)
    assert (lost["kind"], lost["estimated"]) == ("lost", True)
    assert (lost["input_tokens"], lost["output_tokens"], lost["total_tokens"]) == (120, 0, 120)
    assert (lost["cost_micros"], lost["model_config_id"]) == (240, seed.model_id)


async def test_the_first_call_of_a_chat_is_estimated_by_its_message(seed: Seed) -> None:
    claim = await seed.claimed("x" * 4000)
    await lose(seed, claim)
    (lost,) = await ledger(seed.db, claim.chat_id)
    assert 1000 <= lost["input_tokens"] < 1050
    assert lost["cost_micros"] is None


async def test_a_worker_lost_among_its_tools_has_lost_no_model_call(seed: Seed) -> None:
    claim = await seed.claimed()
    step = replace(answer("let me see", 1, *CALLS), usage=USED)
    await work.commit_step(seed.db, claim, [step], CALLS, [], None)
    await lose(seed, claim)
    assert await kinds(seed.db, claim.chat_id) == ["step"]


async def test_what_a_sweeper_has_counted_its_worker_does_not_count_again(seed: Seed) -> None:
    claim = await seed.claimed()
    await lose(seed, claim)
    line = Spent(
        claim.owner_id, claim.chat_id, "lost", estimated_usage(8, 8), turn_id=claim.turn_id
    )
    await record_usage(seed.db, [line], unless_lost_since_s=60)
    assert await kinds(seed.db, claim.chat_id) == ["lost"]
    await record_usage(seed.db, [line], unless_lost_since_s=0)
    await record_usage(seed.db, [line])
    assert await kinds(seed.db, claim.chat_id) == ["lost"] * 3


async def test_a_chats_usage_is_its_owners_alone(seed: Seed) -> None:
    chat_id = await seed.chat_id()
    other = await make_user(seed.db, "max")
    for actor, asked in ((other, chat_id), (seed.actor, UUID(int=9))):
        with pytest.raises(NotFound):
            await usage_of(seed, actor, asked)
    found = await usage_of(seed, seed.actor, chat_id)
    assert (found["total_tokens"], found["total_cost_micros"]) == (0, None)
    assert (found["by_kind"], found["by_model"]) == ([], [])


async def test_a_chats_usage_is_told_by_kind_and_model(seed: Seed) -> None:
    chat_id = await seed.chat_id()
    owner = seed.actor.user_id
    lines = [
        Spent(owner, chat_id, "step", USED, seed.model_id, 10),
        Spent(owner, chat_id, "step", USED, seed.model_id, 5),
        Spent(owner, chat_id, "lost", estimated_usage(40, 0), None, None, estimated=True),
    ]
    await record_usage(seed.db, lines)
    found = await usage_of(seed, seed.actor, chat_id)
    assert (found["total_tokens"], found["total_cost_micros"]) == (250, 15)
    assert (found["priced"], found["unpriced"], found["estimated"]) == (2, 1, 1)
    by_kind = {row["kind"]: row["total_tokens"] for row in found["by_kind"]}
    assert by_kind == {"step": 240, "lost": 10}
    by_model = [(row["model"], row["total_tokens"]) for row in found["by_model"]]
    assert by_model == [("scripted-model", 240), (None, 10)]


async def usage_of(seed: Seed, actor: Actor, chat_id: UUID) -> Any:
    return await chat_usage(seed.db, actor.user_id, chat_id)
