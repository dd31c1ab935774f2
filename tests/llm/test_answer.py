"""Bytes of a stream become deltas, however a provider writes them and a network cuts them."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies

from chatd.core.deltas import Finished, TextDelta
from chatd.llm.failures import ErrorFrame, StreamEnded, StreamMalformed
from tests.llm.provider import (
    DONE,
    STOP,
    answer,
    call,
    calls,
    chunk,
    event,
    events,
    finished,
    read,
    said,
    text,
    thought,
)


def test_one_read_is_one_list_with_its_text_joined() -> None:
    parsed = answer()
    assert parsed.feed(event(text("Hel")) + event(text("lo")) + event(text("!"))) == [
        TextDelta("Hello!")
    ]
    assert parsed.feed(event(STOP) + DONE) == []
    assert parsed.done
    assert parsed.end() == [Finished("stop", None, "chatcmpl-1")]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("space", ["", " ", "  "])
def test_every_line_end_and_any_space_after_the_colon(newline: str, space: str) -> None:
    lines = [
        ": a comment",
        "event: message",
        "id: 7",
        f"data:{space}{json.dumps(text('hello'))}",
        "",
        "retry: 10",
        f"data:{space}{json.dumps(STOP)}",
        "",
        f"data:{space}[DONE]",
        "",
    ]
    stream = (newline.join(lines) + newline).encode()
    assert said(read(stream)) == "hello"
    assert said(read(*(stream[i : i + 1] for i in range(len(stream))))) == "hello"


def test_data_in_several_lines_is_one_event() -> None:
    frame = json.dumps(text("hello"), indent=1).replace("\n", "\ndata: ")
    assert said(read(f"data: {frame}\n\n".encode() + event(STOP) + DONE)) == "hello"


def test_comments_and_half_events_are_no_event() -> None:
    parsed = answer()
    assert parsed.feed(b": ping\n\n") is None
    assert parsed.feed(b'data: {"choices"') is None
    assert parsed.feed(b": []}\n\n") == []


WHOLE = events(
    chunk({"reasoning_content": "Hm … 🤔"}),
    text("Grüße, 世界 👩‍👩‍👧"),
    text(" and \ud83d"),
    text("\ude00 more"),
    call(index=0, id="c1", type="function", function={"name": "f", "arguments": ""}),
    call(index=0, function={"arguments": '{"q": "ä'}),
    call(index=0, function={"arguments": 'ö"}'}),
    chunk(finish="tool_calls"),
    chunk(usage={"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}, choices=[]),
)


@given(strategies.lists(strategies.integers(0, len(WHOLE)), max_size=30))
def test_where_the_network_cuts_makes_no_difference(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(WHOLE)]
    deltas = read(*(WHOLE[a:b] for a, b in pairwise(edges)))
    assert thought(deltas) == "Hm … 🤔"
    assert said(deltas) == "Grüße, 世界 👩‍👩‍👧 and 😀 more"
    assert calls(deltas) == [("c1", "f", '{"q": "äö"}')]
    assert finished(deltas).reason == "tool_calls"


# Text that no database can hold


def test_half_a_character_waits_for_its_other_half() -> None:
    parsed = answer()
    assert parsed.feed(event(text("a\ud83d"))) == [TextDelta("a")]
    assert parsed.feed(event(text("\ude00b"))) == [TextDelta("😀b")]


@pytest.mark.parametrize(
    ("pieces", "clean"),
    [
        (["a\ud83d"], "a\ufffd"),
        (["a\ud83d", "b"], "a\ufffdb"),
        (["\ude00a"], "\ufffda"),
        (["a\x00b"], "a\ufffdb"),
        (["\ud83d", "\ud83d", "\ude00"], "\ufffd😀"),
    ],
)
def test_what_stays_broken_is_replaced(pieces: list[str], clean: str) -> None:
    assert said(read(*(event(text(piece)) for piece in pieces), event(STOP))) == clean


def test_half_a_character_at_the_end_of_reasoning_does_not_leak_into_the_text() -> None:
    deltas = read(event(chunk({"reasoning": "x\ud83d"})), event(text("\ude00y")), event(STOP))
    assert (thought(deltas), said(deltas)) == ("x\ufffd", "\ufffdy")


def test_bytes_that_are_not_utf8_are_replaced() -> None:
    raw = event(text("aXb")).replace(b"X", b"\xff")
    assert said(read(raw, event(STOP))) == "a\ufffdb"


def test_names_ids_and_arguments_are_cleaned_too() -> None:
    deltas = read(
        events(
            call(index=0, id="c\x00", function={"name": "n\ud800", "arguments": "a\x00"}),
            chunk(finish="x\x00"),
        )
    )
    assert calls(deltas) == [("c\ufffd", "n\ufffd", "a\ufffd")]
    assert finished(deltas).reason == "x\ufffd"


# Other fields


def test_reasoning_under_either_name_comes_before_the_text_of_the_same_chunk() -> None:
    deltas = read(
        events(chunk({"reasoning_content": "a", "content": ""}), chunk({"reasoning": "b"}), STOP)
    )
    assert (thought(deltas), said(deltas)) == ("ab", "")


def test_content_as_a_list_of_parts() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    deltas = read(events(chunk({"content": [thinking, {"type": "text", "text": "hi"}]}), STOP))
    assert (thought(deltas), said(deltas)) == ("hm", "hi")


def test_a_refusal_is_shown() -> None:
    assert said(read(events(chunk({"refusal": "I cannot"}), STOP))) == "I cannot"


def test_usage_in_every_known_shape() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
        "completion_tokens_details": {"reasoning_tokens": 15},
    }
    deltas = read(events(text("x"), STOP, chunk(choices=[], usage=usage)))
    assert finished(deltas).usage == {
        "input_tokens": 100,
        "output_tokens": 20,
        "total_tokens": 120,
        "reasoning_tokens": 15,
        "cache_creation_tokens": 10,
        "cache_read_tokens": 60,
    }


@pytest.mark.parametrize("value", ["many", -5, None, True, {}])
def test_usage_without_sense_counts_nothing(value: Any) -> None:
    usage = {"prompt_tokens": value, "completion_tokens": 3}
    counted = finished(read(events(STOP, chunk(choices=[], usage=usage)))).usage
    assert counted is not None
    assert (counted["input_tokens"], counted["output_tokens"], counted["total_tokens"]) == (0, 3, 3)


def test_only_the_first_choice_counts() -> None:
    other = {"index": 1, "delta": {"content": "other"}, "finish_reason": None}
    assert said(read(events(chunk(choices=[other]), text("first"), STOP))) == "first"


def test_an_empty_answer_is_an_answer() -> None:
    assert read(events(STOP)) == [Finished("stop", None, "chatcmpl-1")]


@pytest.mark.parametrize("reason", ["length", "content_filter", "eos"])
def test_the_reason_is_handed_on(reason: str) -> None:
    assert finished(read(events(text("x"), chunk(finish=reason)))).reason == reason


def test_an_answer_without_done_or_without_a_reason_is_complete() -> None:
    assert finished(read(event(text("x")), event(STOP))).reason == "stop"
    assert finished(read(event(text("x")), DONE)).reason == "stop"
    named = call(index=0, id="c", function={"name": "f", "arguments": "{}"})
    assert finished(read(event(named), DONE)).reason == "tool_calls"


def test_a_last_event_without_its_empty_line_counts() -> None:
    assert finished(read(event(text("x")), event(STOP).rstrip())).reason == "stop"


def test_nothing_after_done_counts() -> None:
    assert said(read(events(text("x"), STOP) + event(text("y")))) == "x"


# Answers that are not streamed, or no answers


def test_an_answer_that_is_not_streamed() -> None:
    message = {
        "content": "hi",
        "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}],
    }
    body = {"id": "x", "choices": [{"message": message, "finish_reason": "tool_calls"}]}
    parsed = answer()
    deltas = parsed.whole(json.dumps(body, indent=2).encode()) + parsed.end()
    assert said(deltas) == "hi"
    assert calls(deltas) == [("a", "f", "{}")]
    assert finished(deltas).response_id == "x"


@pytest.mark.parametrize(
    "stream", [b"", event(text("half an answer")), b": only\n\n: comments\n\n", b"<html>"]
)
def test_a_stream_that_ends_early_is_no_answer(stream: bytes) -> None:
    with pytest.raises(StreamEnded):
        read(stream)


@pytest.mark.parametrize(
    "frame",
    [
        '{"choices": [{"delta": {"content": "cut of',
        '{"choices": {}, "x": 1, "y"}',
        '{"choices": 5}',
        '{"choices": ["x"]}',
        '{"choices": [{"delta": 5}]}',
        '{"choices": [{"delta": {"content": 5}}]}',
        '{"choices": [{"delta": {"refusal": 5}}]}',
        '{"choices": [{"delta": {"tool_calls": 5}}]}',
        '{"choices": [{"delta": {"tool_calls": [5]}}]}',
        '{"choices": [{"delta": {"tool_calls": [{"function": 5}]}}]}',
        '{"choices": [{"delta": {"tool_calls": [{"function": {"name": 5}}]}}]}',
        '{"usage": 5}',
    ],
)
def test_a_damaged_chunk_fails_at_once(frame: str) -> None:
    with pytest.raises(StreamMalformed):
        read(event(text("x")), event(frame), event(STOP), DONE)


def test_a_little_noise_between_chunks_is_skipped_and_much_is_not() -> None:
    assert said(read(event("ping") * 3, event(text("x")), event(STOP))) == "x"
    with pytest.raises(StreamMalformed):
        read(event("ping") * 4, event(text("x")), event(STOP))


@pytest.mark.parametrize(
    "frame",
    [
        {"error": {"message": "boom", "code": 500}},
        {"error": "boom"},
        {"object": "error", "message": "boom", "code": 400},
        chunk(error={"message": "boom"}),
    ],
)
def test_an_error_frame_is_raised(frame: dict[str, Any]) -> None:
    with pytest.raises(ErrorFrame):
        read(event(text("x")), event(frame))


def test_an_endless_event_is_refused() -> None:
    with pytest.raises(StreamMalformed, match="larger"):
        read(*[b"data: " + b"x" * 1024 * 1024] * 20)
