"""Tool calls as providers really send them."""

from typing import Any

import pytest

from chatd.core.deltas import ToolCallDelta
from tests.llm.provider import answer, call, calls, event, events, read


def test_fragments_of_two_calls_by_index() -> None:
    deltas = read(
        events(
            call(index=0, id="a", function={"name": "f", "arguments": ""}),
            call(index=0, function={"arguments": '{"x"'}),
            call(index=0, function={"arguments": ": 1}"}),
            call(index=1, id="b", function={"name": "g", "arguments": ""}),
            call(index=1, function={"arguments": "{}"}),
            call(index=0, function={"arguments": " "}),
        )
    )
    assert calls(deltas) == [("a", "f", '{"x": 1} '), ("b", "g", "{}")]


def test_id_and_name_come_once_and_pieces_of_one_read_are_joined() -> None:
    pieces = [
        call(index=0, id="a", function={"name": "f", "arguments": "{"}),
        call(index=0, id="a", function={"name": "f", "arguments": '"x"'}),
    ]
    parsed = answer()
    assert parsed.feed(b"".join(map(event, pieces))) == [ToolCallDelta(0, "a", "f", '{"x"')]
    assert parsed.feed(event(call(index=0, id="a", function={"arguments": ":1}"}))) == [
        ToolCallDelta(0, "", "", ":1}")
    ]


@pytest.mark.parametrize("index", [{}, {"index": 0}, {"index": None}])
def test_whole_calls_without_index_or_all_numbered_zero(index: dict[str, Any]) -> None:
    deltas = read(
        events(
            call(**index, id="a", function={"name": "f", "arguments": '{"x":1}'}),
            call(**index, id="b", function={"name": "f", "arguments": '{"x":2}'}),
        )
    )
    assert calls(deltas) == [("a", "f", '{"x":1}'), ("b", "f", '{"x":2}')]


@pytest.mark.parametrize("index", [{}, {"index": 0}])
def test_whole_calls_without_ids_get_their_own(index: dict[str, Any]) -> None:
    deltas = read(
        events(
            call(**index, function={"name": "f", "arguments": '{"x":1}'}),
            call(**index, id="", function={"name": "f", "arguments": '{"x":2}'}),
            call(**index, id=None, function={"name": "g", "arguments": {"x": 3}}),
        )
    )
    assert calls(deltas) == [
        ("made-1", "f", '{"x":1}'),
        ("made-2", "f", '{"x":2}'),
        ("made-3", "g", '{"x":3}'),
    ]


def test_fragments_without_an_index_belong_to_the_last_call() -> None:
    deltas = read(
        events(
            call(id="a", function={"name": "f", "arguments": '{"x"'}),
            call(function={"arguments": ":1}"}),
            call(id="b", function={"name": "g", "arguments": "{"}),
            call(id="b", function={"arguments": "}"}),
        )
    )
    assert calls(deltas) == [("a", "f", '{"x":1}'), ("b", "g", "{}")]


def test_name_and_id_repeated_in_every_fragment() -> None:
    deltas = read(
        events(
            call(index=0, id="a", function={"name": "f", "arguments": '{"x"'}),
            call(index=0, id="a", function={"name": "f", "arguments": ":1}"}),
            call(index=0, id="a", function={"name": "f", "arguments": ""}),
        )
    )
    assert calls(deltas) == [("a", "f", '{"x":1}')]


def test_a_name_repeated_without_an_id() -> None:
    deltas = read(
        events(
            call(index=0, function={"name": "f", "arguments": '{"x"'}),
            call(index=0, function={"name": "f", "arguments": ":1}"}),
            call(index=0, function={"name": "f", "arguments": ""}),
        )
    )
    assert calls(deltas) == [("made-1", "f", '{"x":1}')]


def test_a_new_id_in_every_fragment() -> None:
    deltas = read(
        events(
            call(index=0, id="r1", function={"name": "f", "arguments": ""}),
            call(index=0, id="r2", function={"name": None, "arguments": "{"}),
            call(index=0, id="r3", function={"arguments": "}"}),
        )
    )
    assert calls(deltas) == [("r1", "f", "{}")]


def test_a_name_that_comes_after_the_id() -> None:
    deltas = read(
        events(
            call(index=0, id="a", function={"arguments": ""}),
            call(index=0, function={"name": "f"}),
            call(index=0, function={"arguments": "{}"}),
        )
    )
    assert calls(deltas) == [("a", "f", "{}")]


def test_a_call_that_never_gets_a_name_is_handed_on() -> None:
    deltas = read(events(call(index=0, id="a", function={"arguments": "{}"})))
    assert calls(deltas) == [("a", "", "{}")]


def test_ids_are_unique_within_an_answer_and_indexes_have_no_gaps() -> None:
    deltas = read(
        events(
            call(index=1, id="same", function={"name": "f", "arguments": "{}"}),
            call(index=5, id="same", function={"name": "g", "arguments": "{}"}),
        )
    )
    assert calls(deltas) == [("same", "f", "{}"), ("made-1", "g", "{}")]
