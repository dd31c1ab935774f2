"""The tools of plan mode: who is offered them, and their arguments as models write them."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from chatd.core.plans import MAX_PLAN_BYTES, Plan, approval
from chatd.core.situation import Situation
from chatd.core.tools import BuiltinTool, ToolResult
from chatd.policy.builtins import builtin_refusal
from chatd.tools.planning import (
    MAX_TITLE,
    PLANNING_TOOLS,
    Proposal,
    read_proposal,
    read_questions,
)

OPTIONS = [{"label": "one", "description": "the first"}, {"label": "two", "description": "more"}]
QUESTION = {"header": "Scope", "question": "Which one?", "options": OPTIONS}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "content must be the plan"),
        ({"content": " \n"}, "content must be the plan"),
        ({"content": ["x"]}, "content must be the plan"),
        ({"content": "é" * (MAX_PLAN_BYTES // 2 + 1)}, "content has 32770 bytes"),
        ({"content": "x", "title": 3}, "title must be a string."),
    ],
)
def test_a_plan_that_cannot_be_kept_is_told_what_is_wrong(
    arguments: dict[str, Any], says: str
) -> None:
    wrong = read_proposal(arguments)
    assert isinstance(wrong, ToolResult)
    assert (wrong.is_error, wrong.outcome) == (True, "failed")
    assert says in wrong.text


@pytest.mark.parametrize(
    ("title", "name"),
    [
        (None, None),
        ("", None),
        (" .. ", None),
        ("Move the\nA/B tests", "Move the A-B tests.md"),
        ("plan.md", "plan.md"),
        ("../../etc/passwd", "..-..-etc-passwd.md"),
        ("x\u202egpj", "xgpj.md"),
        ("x" * 500, "x" * MAX_TITLE + ".md"),
    ],
)
def test_a_plans_file_is_named_for_its_title(title: str | None, name: str | None) -> None:
    assert read_proposal({"title": title, "content": "x"}) == Proposal(name, "x")


def test_a_plan_may_fill_its_limit_and_says_nothing_unspeakable() -> None:
    longest = "é" * (MAX_PLAN_BYTES // 2)
    assert read_proposal({"content": longest}) == Proposal(None, longest)
    assert read_proposal({"content": "a\x00b"}) != Proposal(None, "a\x00b")


@pytest.mark.parametrize(
    ("questions", "says"),
    [
        (None, "questions must be a list of 1 to 4 questions."),
        ([], "questions must be a list"),
        ([QUESTION] * 5, "questions must be a list"),
        (["Which one?"], "questions[0] must be an object."),
        ([QUESTION, QUESTION | {"header": " "}], "questions[1].header must be a string"),
        ([QUESTION | {"question": None}], "questions[0].question must be a string"),
        ([QUESTION | {"options": None}], "questions[0].options must be a list of 2 to 4"),
        ([QUESTION | {"options": OPTIONS[:1]}], "questions[0].options must be a list"),
        ([QUESTION | {"options": OPTIONS * 3}], "questions[0].options must be a list"),
        ([QUESTION | {"options": ["a", "b"]}], "questions[0].options[0] must be an object."),
        (
            [QUESTION | {"options": [OPTIONS[0], {"label": "two"}]}],
            "questions[0].options[1].description must be a string",
        ),
    ],
)
def test_a_question_that_cannot_be_asked_is_told_what_is_wrong(questions: Any, says: str) -> None:
    wrong = read_questions({"questions": questions})
    assert wrong is not None
    assert wrong.is_error
    assert wrong.text.startswith(says)


def test_one_to_four_questions_are_asked() -> None:
    assert read_questions({"questions": [QUESTION]}) is None
    most = QUESTION | {"options": OPTIONS * 2}
    assert read_questions({"questions": [most] * 4}) is None


@pytest.mark.parametrize("tool", PLANNING_TOOLS, ids=lambda tool: tool.spec.name)
def test_plans_and_questions_are_for_root_chats_in_plan_mode(tool: BuiltinTool) -> None:
    def why(*, plan_mode: bool, is_child: bool = False, explore: bool = False) -> str | None:
        situation = Situation(plan_mode=plan_mode, is_child=is_child, explore=explore)
        refusal = builtin_refusal(tool, situation)
        return refusal.reason if refusal is not None else None

    assert why(plan_mode=True) is None
    assert why(plan_mode=False) == "only_in_plan_mode"
    assert why(plan_mode=True, is_child=True) == "root_only"
    assert why(plan_mode=True, is_child=True, explore=True) == "root_only"


def test_an_approval_holds_the_plan_itself_and_what_else_is_said() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    plan = Plan(UUID(int=1), "plan-1.md", "# Do\n\n1. it\n", at, None)
    first, quoted, more = approval(plan, [{"type": "text", "text": "Quickly."}])
    assert first["type"] == "text"
    assert "plan-1.md" in first["text"]
    assert quoted == {
        "type": "file-reference",
        "file_name": "plan-1.md",
        "start_line": 1,
        "end_line": 3,
        "content": "# Do\n\n1. it\n",
    }
    assert more == {"type": "text", "text": "Quickly."}
