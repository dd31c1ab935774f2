"""The script language of the scripted model, and its memory of what went wrong."""

import math
from typing import Any

import pytest

from chatd.dev.scripted_model.mishaps import Course, Mishaps
from chatd.dev.scripted_model.request import Request
from chatd.dev.scripted_model.script import (
    Answer,
    Call,
    Drop,
    Echo,
    Fail,
    Hang,
    Long,
    Messages,
    Say,
    Step,
    Tool,
    ToolCall,
    Tools,
    parse,
)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("/say hello  there", Say("hello  there")),
        ("/say", Say("")),
        ("/long 50 20", Long(50, 0.02)),
        ("/tools", Tools()),
        ("/tool demo__add", Tool("demo__add")),
        ("/messages", Messages()),
        ("/echo", Echo()),
        ("/call now", Call((ToolCall("now", "{}"),))),
        ("/call now & then", Call((ToolCall("now", "{}"), ToolCall("then", "{}")))),
        (
            '/call a {"x": "1 & 2"} & b {"y": {"z": []}}',
            Call((ToolCall("a", '{"x": "1 & 2"}'), ToolCall("b", '{"y": {"z": []}}'))),
        ),
        ("/call a {oops & b {}", Call((ToolCall("a", "{oops"), ToolCall("b", "{}")))),
        ("/call a {} {}", Call((ToolCall("a", "{} {}"),))),
        ("/call", Say("cannot read step: /call")),
        ("/long 5", Say("cannot read step: /long 5")),
        ("/long -1 0", Say("cannot read step: /long -1 0")),
        ("/drop x", Say("cannot read step: /drop x")),
        ("/hang nan", Say("cannot read step: /hang nan")),
        ("/fail 200", Say("cannot read step: /fail 200")),
        ("/fail", Say("cannot read step: /fail")),
        ("/dance", Say("no such step: /dance")),
    ],
)
def test_a_line_is_an_answer(line: str, answer: Answer) -> None:
    assert parse(line) == (Step((), answer),)


@pytest.mark.parametrize(
    ("line", "mishap"),
    [
        ("/fail 503", Fail(503, 1, None)),
        ("/fail 400", Fail(400, math.inf, None)),
        ("/fail 400 2", Fail(400, 2, None)),
        ("/fail 429 3 7", Fail(429, 3, 7)),
        ("/drop 4", Drop(4)),
        ("/hang 0.5", Hang(0.5)),
    ],
)
def test_a_mishap_comes_before_the_answer_below_it(line: str, mishap: Fail) -> None:
    assert parse(f"{line}\n/say hi\n/echo") == (Step((mishap,), Say("hi")), Step((), Echo()))
    assert parse(f"/say hi\n{line}") == (Step((), Say("hi")), Step((mishap,)))


def test_other_lines_are_not_steps() -> None:
    assert parse("Please:\n/say one\n and /say nothing else\n/say two") == (
        Step((), Say("one")),
        Step((), Say("two")),
    )
    assert parse("hello") == ()


def a_request(text: str = "hi", **identity: str) -> Request:
    messages: list[dict[str, Any]] = [{"role": "user", "content": text}]
    return Request("scripted-model", messages, [], False, False, 1, identity)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


FAIL_TWICE = Fail(503, 2, None)


def test_a_failure_happens_as_often_as_it_says_and_again_the_next_time() -> None:
    mishaps = Mishaps(Clock())
    step = Step((FAIL_TWICE, Hang(1), Drop(3)), Say("hi"))
    courses = [mishaps.course(a_request(), step) for _ in range(5)]
    once = [
        Course(0, FAIL_TWICE),
        Course(0, FAIL_TWICE),
        Course(1, Drop(3)),
        Course(1, None),
    ]
    assert courses == [*once, Course(0, FAIL_TWICE)]


def test_a_failure_for_good_never_ends() -> None:
    mishaps = Mishaps(Clock())
    forever = Fail(400, math.inf, None)
    step = Step((forever,))
    assert {mishaps.course(a_request(), step) for _ in range(9)} == {Course(0, forever)}


@pytest.mark.parametrize("other", [a_request("ho"), a_request(user="another")])
def test_another_conversation_fails_on_its_own(other: Request) -> None:
    mishaps = Mishaps(Clock())
    step = Step((Drop(1),))
    assert mishaps.course(a_request(), step).failure == Drop(1)
    assert mishaps.course(other, step).failure == Drop(1)
    assert mishaps.course(a_request(), step).failure is None


def test_what_a_client_gave_up_is_forgotten() -> None:
    clock = Clock()
    mishaps = Mishaps(clock)
    step = Step((FAIL_TWICE,))
    mishaps.course(a_request(), step)
    clock.now = 3600
    assert [mishaps.course(a_request(), step).failure for _ in range(3)] == [
        FAIL_TWICE,
        FAIL_TWICE,
        None,
    ]
