"""Where a turn goes on after its worker was lost, from every point at which it can be."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from chatd.core.messages import Part, ToolCallPart, ToolResultPart
from chatd.core.tools import CallState, OfferedTool, ToolCall, ToolResult
from chatd.core.work import CallOutcome, Claim, JournalEntry, LoadedTurn, PlannedCall, StoredMessage
from chatd.store import work
from chatd.turn.deps import Control
from chatd.turn.resume import UNKNOWN, resume
from chatd.turn.run import run_turn
from tests.seed import answer, said
from tests.stream.listening import make_claim
from tests.turn.bench import Bench, at_once, call

TOOLS = {"add": OfferedTool("add", "add", "", {})}

# --- pure


def loaded(history: list[StoredMessage], journal: list[JournalEntry]) -> LoadedTurn:
    return LoadedTurn(
        claim=make_claim(),
        kind="message",
        mode=None,
        title="",
        title_source="fallback",
        deployment={},
        personal={},
        dynamic_tools=[],
        ran_s=0.0,
        items=[],
        parent_chat_id=None,
        root_chat_id=None,
        plan_mode=False,
        reasoning_effort=None,
        selected_ids=frozenset(),
        servers=(),
        group_ids=frozenset(),
        policy_version=1,
        system_prompt="",
        model=None,
        model_error=None,
        notices=[],
        history=history,
        journal=journal,
        first_token_at=None,
    )


def user(step: int | None = 0) -> StoredMessage:
    return StoredMessage(role="user", content=said("go"), step=step)


def calling(step: int | None, *arguments: str) -> StoredMessage:
    """An assistant's message that calls `add` with each of these."""
    parts: list[Part] = [
        ToolCallPart(type="tool-call", tool_call_id=f"c{n}", tool_name="add", args=args)
        for n, args in enumerate(arguments, 1)
    ]
    return StoredMessage(role="assistant", content=parts, step=step)


def answering(step: int, position: int) -> StoredMessage:
    return StoredMessage(role="tool", content=[part(position)], step=step)


def part(position: int, text: str = "3", *, error: bool = False) -> ToolResultPart:
    return ToolResultPart(
        type="tool-result",
        tool_call_id=f"c{position}",
        tool_name="add",
        result=text,
        is_error=error,
    )


def entry(
    position: int, state: CallState, arguments: str = "1", *, safe: bool = False, **result: Any
) -> JournalEntry:
    kept = dict(part(position, **result)) if result else None
    asked = ToolCall(f"c{position}", "add", arguments)
    return JournalEntry(1, position, state, asked, safe, None, kept)


def test_a_new_turn_begins_at_its_beginning() -> None:
    start = resume(loaded([calling(None, "1"), user()], []), TOOLS)
    assert (start.next_step, start.open_step, start.made) == (1, None, Counter())
    assert [message["role"] for message in start.history] == ["assistant", "user"]
    assert "step" not in start.history[0]


def test_after_committed_results_the_model_is_asked_again() -> None:
    history = [user(), calling(1, "1", "1"), answering(1, 1), answering(1, 2), calling(2, "1")]
    history += [StoredMessage(role="tool", content=[part(1)], step=2)]
    start = resume(loaded(history, []), TOOLS)
    assert (start.next_step, start.open_step) == (3, None)
    assert start.made == {("add", "1"): 2}  # in two steps, though made three times


@pytest.mark.parametrize(
    ("found", "runs", "known"),
    [
        (entry(1, "intended"), True, None),
        (entry(1, "intended", safe=True), True, None),
        (entry(1, "sent", safe=True), True, None),
        (entry(1, "sent"), False, ToolResult(UNKNOWN, is_error=True, outcome="unknown")),
        (entry(1, "waiting"), True, None),
        (entry(1, "unknown"), False, ToolResult(UNKNOWN, is_error=True, outcome="unknown")),
        (entry(1, "done", text="5"), False, ToolResult("5")),
        (
            entry(1, "failed", text="no", error=True),
            False,
            ToolResult("no", is_error=True, outcome="failed"),
        ),
        (
            entry(1, "denied", text="no", error=True),
            False,
            ToolResult("no", is_error=True, outcome="denied"),
        ),
        (
            entry(1, "cancelled", text="no", error=True),
            False,
            ToolResult("no", is_error=True, outcome="cancelled"),
        ),
    ],
    ids=lambda value: f"{value.state}-{value.safe}" if isinstance(value, JournalEntry) else "",
)
def test_only_a_call_that_may_be_made_again_is(
    found: JournalEntry, *, runs: bool, known: ToolResult | None
) -> None:
    start = resume(loaded([user(), calling(1, "1")], [found]), TOOLS)
    assert start.next_step == 2
    assert start.open_step is not None
    planned = PlannedCall(found.call, 1, 1, TOOLS["add"])
    assert start.open_step.open == ([planned] if runs else [])
    assert start.open_step.answered == ([(planned, known)] if known else [])


def test_a_tool_that_is_no_longer_offered_is_planned_without_one() -> None:
    start = resume(loaded([user(), calling(1, "1")], [entry(1, "intended")]), {})
    assert start.open_step is not None
    assert start.open_step.open[0].tool is None


def test_a_call_is_not_made_on_another_server_that_has_taken_the_name() -> None:
    tools = {"add": replace(TOOLS["add"], server_id=UUID(int=2))}
    meant = replace(entry(1, "waiting"), server_id=UUID(int=1))
    for server_id, tool in ((UUID(int=1), None), (UUID(int=2), tools["add"])):
        found = replace(meant, server_id=server_id)
        start = resume(loaded([user(), calling(1, "1")], [found]), tools)
        assert start.open_step is not None
        assert start.open_step.open[0].tool == tool


def test_media_of_a_known_result_are_kept() -> None:
    picture = {"media_type": "image/png", "data": "eA=="}
    found = entry(1, "done", text="")
    assert found.result is not None
    found = replace(found, result=found.result | {"media": [picture]})
    start = resume(loaded([user(), calling(1, "1")], [found]), TOOLS)
    assert start.open_step is not None
    assert start.open_step.answered[0][1].media == (picture,)


def test_an_open_steps_calls_are_counted_by_whoever_makes_them() -> None:
    journal = [entry(1, "done", "1", text="3"), entry(2, "intended", "2"), entry(3, "sent", "1")]
    history = [user(), calling(1, "1", "2", "1")]
    start = resume(loaded(history, journal), TOOLS)
    assert start.made == {("add", "1"): 1}  # the loop will count ("add", "2")
    journal = [entry(1, "done", "1", text="3"), entry(2, "intended", "1")]
    start = resume(loaded([user(), calling(1, "1", "1")], journal), TOOLS)
    assert start.made == {}


# --- on real servers


CRASHES = [
    "before the first step",
    "calls intended",
    "calls sent",
    "one call done",
    "both calls done",
    "results committed",
]


@pytest.mark.parametrize("crash", CRASHES)
async def test_a_lost_turn_goes_on_where_it_was(
    bench: Bench, appended: Callable[[str], int], crash: str
) -> None:
    mark = f"lost at {crash}"
    claim = await bench.claim(
        at_once(call("append", text=mark), call("add", a=1, b=2)), "/echo", "/say never"
    )
    await get_to(bench, claim, CRASHES.index(crash), mark)
    again = await bench.again(claim)
    assert again.attempt == 2
    unknown = crash == "calls sent"
    assert (await bench.turn(claim))["status"] == "completed"
    assert await bench.states(claim) == (["unknown", "done"] if unknown else ["done", "done"])
    told = await bench.told(claim)
    assert len(told) == 5
    assert told[2] == ("-> " + UNKNOWN if unknown else told[2])
    assert told[3:] == ["-> 3", "3"]
    done_before = CRASHES.index(crash) >= CRASHES.index("one call done")
    assert appended(mark) == (0 if unknown or done_before else 1)
    await bench.complete(claim)


async def get_to(bench: Bench, claim: Claim, point: int, mark: str) -> None:
    """What a worker had written when it was lost at this point."""
    tools = {
        name: OfferedTool(f"demo__{name}", name, "", {}, bench.server_id, safe=name == "add")
        for name in ("append", "add")
    }
    calls = [
        PlannedCall(ToolCall("x1", "demo__append", f'{{"text":"{mark}"}}'), 1, 1, tools["append"]),
        PlannedCall(ToolCall("x2", "demo__add", '{"a":1,"b":2}'), 1, 2, tools["add"]),
    ]
    db = bench.seed.db
    outcomes = [
        CallOutcome(1, n, "done", dict(result(n, text))) for n, text in enumerate(("1", "3"), 1)
    ]
    if point >= 1:
        await work.commit_step(db, claim, [answer("", 1, *calls)], calls, [], None)
    if point >= 2:
        assert await work.mark_sent(db, claim, 1, [1, 2], 1) == {1, 2}
    for outcome in outcomes[: max(0, min(point, 4) - 2)]:
        await work.record_result(db, claim, outcome)
    if point == 5:
        messages = [tool_message(outcome) for outcome in outcomes]
        await work.commit_results(db, claim, messages, outcomes, [])


def result(position: int, text: str) -> ToolResultPart:
    return {**part(position, text), "tool_call_id": f"x{position}"}


def tool_message(outcome: CallOutcome) -> Any:
    content: Any = [outcome.result]
    return replace(answer("", 1), role="tool", position=outcome.position, content=content)


async def test_a_stop_nobody_told_us_of_is_found_at_the_end(bench: Bench) -> None:
    claim = await bench.claim("/say x")
    await bench.seed.db.fetch("UPDATE turns SET status = 'interrupting'")
    assert await run_turn(bench.deps, claim, Control()) == "interrupted"
