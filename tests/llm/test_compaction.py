"""When a history is summed up, and what of it still fits when it is too long even for that."""

from collections.abc import Sequence
from typing import Any

import pytest

from chatd.core.answers import Answer
from chatd.core.errors import TurnFailed
from chatd.core.messages import NO_USAGE, HistoryMessage, ToolResultPart, Usage
from chatd.llm.clients import ModelClients
from chatd.llm.compaction import (
    MAX_RESULT_CHARS,
    Calling,
    entered,
    fitted,
    is_due,
    summarise,
)
from chatd.llm.prompt import Message, chat_messages
from tests.llm.provider import model
from tests.outbound.raw_server import Exchange, serving
from tests.seed import said


def message(role: Any, words: str) -> HistoryMessage:
    return HistoryMessage(role=role, content=said(words))


def result(text: str) -> HistoryMessage:
    part = ToolResultPart(
        type="tool-result", tool_call_id="c", tool_name="t", result=text, is_error=False
    )
    part["media"] = [{"media_type": "image/png", "data": "x" * 9000}]
    return HistoryMessage(role="tool", content=[part])


HISTORY = [
    message("user", "first"),
    message("assistant", "calls"),
    result("r" * 5000),
    result("short"),
    message("assistant", "last"),
]


@pytest.mark.parametrize(
    ("used", "since_summary", "threshold", "due"),
    [
        (None, None, 0, False),
        (699, None, 70, False),
        (700, None, 70, True),
        (5000, None, 100, False),
        (1, None, 0, True),
        (900, 850, 70, False),
        (950, 850, 70, True),
        (750, 100, 70, True),
    ],
)
def test_it_is_due_at_the_threshold_and_when_there_is_something_new(
    used: int | None, since_summary: int | None, threshold: int, *, due: bool
) -> None:
    assert is_due(used, since_summary, limit=1000, threshold=threshold) is due


def test_cached_tokens_are_counted_once_and_the_total_serves_where_nothing_else_is_told() -> None:
    cached: Usage = {**NO_USAGE, "input_tokens": 10, "cache_read_tokens": 8, "total_tokens": 12}
    assert entered(cached) == 10
    assert entered({**NO_USAGE, "total_tokens": 12}) == 12


def test_results_are_cut_before_anything_is_left_out() -> None:
    kept = fitted(HISTORY, 4000)
    assert [m["role"] for m in kept] == [m["role"] for m in HISTORY]
    texts = [part["result"] for m in kept for part in m["content"] if part["type"] == "tool-result"]
    assert [len(text) < MAX_RESULT_CHARS + 10 for text in texts] == [True, True]
    assert not any("media" in part for m in kept for part in m["content"])
    assert HISTORY[2]["content"][0].get("media"), "the history itself stays whole"


def test_a_call_goes_with_its_results() -> None:
    kept = fitted(HISTORY, 300)
    assert [m["role"] for m in kept] == ["user", "assistant"]
    assert kept[0]["content"] != HISTORY[0]["content"]
    assert kept[1] == HISTORY[4]


def test_the_last_step_stays_whatever_its_size() -> None:
    assert fitted(HISTORY, 0)[1:] == [HISTORY[4]]


async def test_a_summary_that_does_not_come_in_time_is_given_up_and_accounted(
    clients: ModelClients,
) -> None:
    lost: list[Answer] = []

    async def begun(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.until_closed()

    async def render(history: Sequence[HistoryMessage]) -> list[Message]:
        return chat_messages([], history)

    async def ours() -> bool:
        return True

    async with serving(begun) as server:
        served = model(f"http://127.0.0.1:{server.port}/v1")
        calling = Calling(
            client=clients.client(served),
            model=served,
            tools=(),
            effort=None,
            render=render,
            still_mine=ours,
            asked=lambda messages: None,
            lost=lost.append,
            patience_s=0.2,
        )
        with pytest.raises(TurnFailed) as failed:
            await summarise(calling, HISTORY, refused=False)
    assert failed.value.error["kind"] == "timeout"
    assert len(lost) == 1
