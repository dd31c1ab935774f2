"""What `chatd chat` makes of a turn's events: every piece of text once."""

from typing import Any

import orjson
import pytest

from chatd.cli.chat.events import Event
from chatd.cli.chat.telling import Telling


class Page:
    """A screen that keeps what was written; asides in brackets. `answers` are typed in turn."""

    def __init__(self, *answers: str) -> None:
        self.written = ""
        self.answers = list(answers)
        self.waits: list[str] = []

    def wait(self, why: str) -> None:
        self.waits.append(why)

    def rest(self) -> None:
        if self.written and not self.written.endswith("\n"):
            self.written += "\n"

    def text(self, piece: str) -> None:
        self.written += piece

    def line(self, text: str, style: str = "") -> None:
        self.rest()
        self.written += f"{text}\n"

    def aside(self, text: str, style: str = "yellow") -> None:
        self.line(f"[{text}]")

    def ask(self, prompt: str) -> str:
        self.line(prompt)
        if not self.answers:
            raise EOFError
        return self.answers.pop(0)


def piece(text: str) -> Event:
    return Event("message_part", {"role": "assistant", "part": {"type": "text", "text": text}})


def message(number: int, role: str, *content: dict[str, Any]) -> Event:
    return Event("message", {"message": {"id": number, "role": role, "content": list(content)}})


def said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def call(call_id: str, args: str = "{}") -> dict[str, Any]:
    return {"type": "tool-call", "tool_call_id": call_id, "tool_name": "t", "args": args}


def result(call_id: str, text: str, *, is_error: bool = False, **more: Any) -> dict[str, Any]:
    part = {"type": "tool-result", "tool_call_id": call_id, "tool_name": "t", "result": text}
    return {**part, "is_error": is_error, **more}


RESET = Event("preview_reset", {})
LOST = Event("lost", {})


@pytest.mark.parametrize(
    ("events", "written"),
    [
        pytest.param(
            [piece("Hel"), piece("lo"), message(2, "assistant", said("Hello"))],
            "Hello\n",
            id="streamed",
        ),
        pytest.param([message(2, "assistant", said("Hello"))], "Hello\n", id="whole"),
        pytest.param(
            [piece("Hel"), message(2, "assistant", said("Hello"))], "Hello\n", id="gap at the end"
        ),
        pytest.param(
            [piece("Hel"), LOST, RESET, piece("He"), piece("llo")],
            "Hello",
            id="told again after a lost connection",
        ),
        pytest.param(
            [piece("Hel"), LOST, RESET, message(2, "assistant", said("Hello"))],
            "Hello\n",
            id="committed while the connection was lost",
        ),
        pytest.param(
            [piece("Hel"), RESET, piece("Good"), piece(" day")],
            "Hel\nGood day",
            id="another answer after a failed attempt",
        ),
        pytest.param(
            [piece("a"), message(2, "assistant", said("a")), piece("a")],
            "a\na",
            id="the same words in the next step",
        ),
        pytest.param(
            [message(2, "assistant", said("a")), LOST, message(2, "assistant", said("a"))],
            "a\n",
            id="a message told twice",
        ),
    ],
)
def test_text_is_written_once(events: list[Event], written: str) -> None:
    page = Page()
    telling = Telling(page)
    for event in events:
        telling.take(event)
    assert page.written == written


def test_calls_and_results_stand_on_lines_of_their_own() -> None:
    page = Page()
    telling = Telling(page)
    telling.take(piece("Let me see."))
    telling.take(message(2, "assistant", said("Let me see."), call("1", '{"a":1}'), call("2")))
    assert page.waits[-1] == "running t, t"
    shown_early = {"role": "tool", "part": result("2", "no", is_error=True)}
    telling.take(Event("message_part", shown_early))
    telling.take(message(3, "tool", result("1", "x\ny", media=[{"media_type": "image/png"}])))
    telling.take(message(4, "tool", result("2", "no", is_error=True)))
    assert page.written == 'Let me see.\n→ t {"a":1}\n→ t {}\n← t no\n← t x y [image/png]\n'


def test_a_call_that_says_what_it_is_for_is_shown_by_that() -> None:
    page = Page()
    telling = Telling(page)
    started = {"type": "tool-call", "tool_call_id": "1", "args_delta": "", "tool_name": "t"}
    label = {"type": "tool-call", "tool_call_id": "1", "args_delta": "", "intent": "adding up"}
    for part in (started, label):
        telling.take(Event("message_part", {"role": "assistant", "part": part}))
    assert page.waits == ["calling t", "adding up"]
    telling.take(message(2, "assistant", {**call("1"), "intent": "adding up"}, call("2")))
    assert page.waits[-1] == "running adding up, t"
    assert page.written == "→ adding up: t {}\n→ t {}\n"


def planning(name: str, args: str) -> dict[str, Any]:
    return {**call("1", args), "tool_name": name}


def test_a_plan_is_shown_in_full_and_what_to_do_with_it() -> None:
    page = Page()
    telling = Telling(page)
    args = orjson.dumps({"title": "Dig", "content": "1. Dig.\n" + "2. Deeper.\n" * 40}).decode()
    telling.take(message(2, "assistant", planning("propose_plan", args)))
    telling.take(message(3, "tool", {**result("1", "{}"), "tool_name": "propose_plan"}))
    lines = page.written.splitlines()
    assert lines[:3] == ["Plan Dig:", "│ 1. Dig.", "│ 2. Deeper."]
    assert len(lines) == 43
    assert lines[-1] == "/approve-plan carries it out; say anything else to have it changed."


def test_questions_are_shown_with_their_options() -> None:
    page = Page()
    telling = Telling(page)
    options = [{"label": "one", "description": "first"}, {"label": "two", "description": "both"}]
    question = {"header": "Scope", "question": "Which\n← one?", "options": options}
    args = orjson.dumps({"questions": [question]}).decode()
    telling.take(message(2, "assistant", planning("ask_user_question", args)))
    telling.take(message(3, "tool", {**result("1", "x"), "tool_name": "ask_user_question"}))
    assert page.written == (
        "You are asked:\n│ Scope: Which\n│ ← one?\n│   1. one: first\n│   2. two: both\n"
        "What you say next is the answer.\n"
    )


@pytest.mark.parametrize("args", ["{", "[]", "{}", '{"content": " "}', '{"questions": [1]}'])
@pytest.mark.parametrize("name", ["propose_plan", "ask_user_question"])
def test_what_cannot_be_proposed_or_asked_is_a_call_like_others(name: str, args: str) -> None:
    page = Page()
    telling = Telling(page)
    telling.take(message(2, "assistant", planning(name, args)))
    refused = {**result("1", "no", is_error=True), "tool_name": name}
    telling.take(message(3, "tool", refused))
    assert page.written == f"→ {name} {args}\n← {name} no\n"


def test_a_long_result_is_shortened() -> None:
    page = Page()
    Telling(page).take(message(2, "tool", result("1", "word " * 1000)))
    assert "(5000 characters)" in page.written
    assert len(page.written) < 400


def test_what_is_no_part_of_the_answer_is_an_aside() -> None:
    page = Page()
    telling = Telling(page)
    error = {"message": "Rate limited.", "kind": "rate_limit"}
    retry = {"attempt_number": 1, "delay_ms": 1500, "error": error}
    telling.take(Event("notice", {"code": "unreachable", "message": "No tools from x."}))
    telling.take(Event("notice", {"code": "c", "message": "Connect x.", "connect_url": "/x"}))
    log = {"code": "server_log", "logger": "demo", "message": "line 1\nline 2"}
    telling.take(Event("notice", log))
    telling.take(Event("notice", {"code": "compacting", "message": "Summing up."}))
    telling.take(Event("retry", {"retry": retry}))
    telling.take(Event("chat_error", {"error": error}))
    assert page.written == (
        "[Note: No tools from x.]\n"
        "[Note: Connect x. /x]\n"
        "[demo: line 1 line 2]\n"
        "[Summing up.]\n"
        "[Rate limited. Again in 1.5 s.]\n"
        "[Error (rate_limit): Rate limited.]\n"
    )


@pytest.mark.parametrize(
    ("done", "total", "shown"),
    [(1, 4, "25%"), (5, 4, "100%"), (-1, 4, "0%"), (3, None, "3"), (3, 0, "3")],
)
def test_progress_is_shown_while_the_tool_runs(done: int, total: int | None, shown: str) -> None:
    page = Page()
    progress = {"progress": done, "total": total, "message": "going on"}
    part = {"type": "tool-result", "tool_call_id": "1", "tool_name": "t", "progress": progress}
    Telling(page).take(Event("message_part", {"role": "tool", "part": part}))
    assert page.waits == [f"running t: {shown} going on"]
    assert page.written == ""
