"""An answer grows delta by delta."""

from chatd.core.answers import Answer
from chatd.core.deltas import Finished, ReasoningDelta, TextDelta, ToolCallDelta
from chatd.core.messages import NO_USAGE
from chatd.core.tools import ToolCall


def grown() -> Answer:
    answer = Answer()
    for delta in (
        ReasoningDelta("let "),
        TextDelta("I "),
        ReasoningDelta("me think"),
        TextDelta("add"),
        ToolCallDelta(0, "a", "demo__add", ""),
        ToolCallDelta(1, "b", "demo__echo", '{"te'),
        ToolCallDelta(0, "", "", '{"a"'),
        ToolCallDelta(1, "", "", 'xt":1}'),
        ToolCallDelta(0, "", "", ":2}"),
        Finished("tool_calls", NO_USAGE, "r1"),
    ):
        answer.add(delta)
    return answer


def test_pieces_of_calls_may_come_interleaved() -> None:
    assert grown().tool_calls() == [
        ToolCall("a", "demo__add", '{"a":2}'),
        ToolCall("b", "demo__echo", '{"text":1}'),
    ]


def test_a_message_has_reasoning_then_text_then_calls() -> None:
    parts = grown().parts()
    assert [part["type"] for part in parts] == ["reasoning", "text", "tool-call", "tool-call"]
    assert parts[:2] == [
        {"type": "reasoning", "text": "let me think"},
        {"type": "text", "text": "I add"},
    ]


def test_unfinished_calls_cannot_stand_in_a_message() -> None:
    assert [part["type"] for part in grown().parts(calls=False)] == ["reasoning", "text"]


def test_how_it_ended_is_kept() -> None:
    answer = grown()
    assert (answer.reason, answer.usage, answer.response_id) == ("tool_calls", NO_USAGE, "r1")
    assert Answer().parts() == []
