"""What a call is for is known as soon as its arguments say it, however they arrive."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st

from chatd.core.deltas import Delta, IntentDelta, ToolCallDelta
from chatd.llm.answer import Answer
from chatd.llm.intents import MAX_INTENT, IntentScan
from tests.llm.provider import call, event, events

VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "model_intent", "properties"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def found(pieces: list[str]) -> list[tuple[int, str]]:
    """The labels, and after which piece each was there."""
    scan = IntentScan()
    labels: list[tuple[int, str]] = []
    for place, piece in enumerate(pieces):
        if not scan.over and (label := scan.feed(piece)):
            labels.append((place, label))
    return labels


def cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


@given(
    st.text('az "\\/é\U0001f600{}[]:,', max_size=20),
    st.lists(st.tuples(st.sampled_from(["a", "b"]), VALUES), max_size=2),
    VALUES,
    st.lists(st.integers(0, 500), max_size=8),
    st.booleans(),
)
def test_the_label_is_that_of_the_whole_text_wherever_it_is_cut(
    intent: str,
    before: list[tuple[str, Any]],
    after: Any,
    places: list[int],
    escaped: bool,
) -> None:
    arguments = {**dict(before), "model_intent": intent, "properties": after}
    text = json.dumps(arguments, ensure_ascii=escaped)
    expected = " ".join(intent.split())
    assert [label for _, label in found(cut(text, places))] == ([expected] if expected else [])


def test_it_is_there_with_the_piece_that_completes_it() -> None:
    pieces = ['{"model_in', 'tent": "add', "ing n\\u00", 'fcmbers", "prop', 'erties": {"a": 1}}']
    assert found(pieces) == [(3, "adding nümbers")]


@pytest.mark.parametrize(
    "text",
    [
        '{"properties": {"model_intent": "nested"}}',
        '[{"model_intent": "listed"}]',
        '{"a": ["model_intent", "x"], "b": "model_intent"}',
        '{"model_intent": 7, "a": "x"}',
        '{"model_intent": ["x"]}',
        '{"model_intent": {"model_intent": "x"}}',
        '{"model_intent": "\u200b"}',
        '{"model_intent": "never closed',
        '{"a": 1} {"model_intent": "second value"}',
        '"model_intent"',
        "",
    ],
)
def test_what_is_not_the_intent_is_not_shown(text: str) -> None:
    assert found(list(text)) == []


def test_a_label_is_one_line_without_invisible_characters_and_cut() -> None:
    said = json.dumps({"model_intent": "adding\n\u202etwo " + "x" * 300})
    ((_, label),) = found([said])
    assert label.startswith("adding two xxx")
    assert (len(label), label[-1]) == (MAX_INTENT, "…")
    assert found([json.dumps({"model_intent": "x" * 5000})]) == []


def told(answer: Answer, *reads: bytes) -> list[list[Delta]]:
    return [answer.feed(read) or [] for read in reads]


def test_a_stream_carries_it_once_and_the_arguments_unchanged() -> None:
    pieces = ['{"model_intent":', '"adding"', ',"properties":{}}']
    reads = [
        event(call(index=0, id="a", function={"name": "demo__add", "arguments": ""})),
        *[event(call(index=0, function={"arguments": piece})) for piece in pieces],
    ]
    assert told(Answer(str, {"demo__add"}), *reads) == [
        [ToolCallDelta(0, "a", "demo__add", "")],
        [ToolCallDelta(0, "", "", pieces[0])],
        [ToolCallDelta(0, "", "", pieces[1]), IntentDelta(0, "adding")],
        [ToolCallDelta(0, "", "", pieces[2])],
    ]
    assert not any(
        isinstance(delta, IntentDelta) for read in told(Answer(str), *reads) for delta in read
    )


def test_two_calls_of_one_answer_each_have_their_own() -> None:
    answer = Answer(str, {"f", "g"})
    reads = events(
        call(index=0, id="a", function={"name": "f", "arguments": '{"model_intent": "fir'}),
        call(index=1, id="b", function={"name": "g", "arguments": '{"model_intent": "second"}'}),
        call(index=0, function={"arguments": 'st"}'}),
    )
    deltas = (answer.feed(reads) or []) + answer.end()
    intents = [delta for delta in deltas if isinstance(delta, IntentDelta)]
    assert intents == [IntentDelta(1, "second"), IntentDelta(0, "first")]
