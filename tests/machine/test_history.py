"""Every prefix of every history becomes messages that the strictest providers accept."""

from hypothesis import HealthCheck, example, given, settings, strategies as some

from chatd.core.messages import HistoryMessage, Media, Part, Role
from chatd.llm.prompt import chat_messages
from tests.strict import accepted

PNG = Media(media_type="image/png", data="aWNvbg==")
ODD = Media(media_type="application/zip", data="eg==")

# Few enough to collide: some providers number the calls of every answer from 0 again.
ids = some.sampled_from(["call_0", "call_1", "functions.look:0", "x" * 64, "é"])
names = some.sampled_from(["look", "demo__add", "no such tool!", "n" * 80, ""])
arguments = some.sampled_from(["{}", '{"a": 1}', "", " ", "[1]", "not json", '{"a": ', "null"])
words = some.sampled_from(["hello", "", "\n\n", " tail "])
media: some.SearchStrategy[list[Media]] = some.sampled_from([[], [PNG], [ODD], [PNG, ODD]])


def text(said: str) -> Part:
    return {"type": "text", "text": said}


def reasoning(said: str) -> Part:
    return {"type": "reasoning", "text": said}


def call(call_id: str, name: str, args: str) -> Part:
    return {"type": "tool-call", "tool_call_id": call_id, "tool_name": name, "args": args}


def result(call_id: str, said: str, shown: list[Media]) -> Part:
    part: Part = {
        "type": "tool-result",
        "tool_call_id": call_id,
        "tool_name": "look",
        "result": said,
        "is_error": False,
    }
    if shown:
        part["media"] = shown
    return part


def message(role: Role, *parts: Part) -> HistoryMessage:
    return HistoryMessage(role=role, content=list(parts))


QUOTED: Part = {
    "type": "file-reference",
    "file_name": "a.md",
    "start_line": 1,
    "end_line": 2,
    "content": "```",
}

Parts = some.SearchStrategy[list[Part]]

thoughts: Parts = some.lists(words.map(reasoning), max_size=1)
texts: Parts = some.lists(words.map(text), max_size=2)
calls: Parts = some.lists(some.builds(call, ids, names, arguments), max_size=3)
beside: Parts = some.lists(some.sampled_from([text("hi"), text(""), QUOTED]), max_size=2)


@some.composite
def steps(draw: some.DrawFn) -> list[HistoryMessage]:
    """An answer and results: those of its calls, in any order, some missing, twice or stray."""
    answer = message("assistant", *draw(thoughts), *draw(texts), *draw(calls))
    made = [part["tool_call_id"] for part in answer["content"] if part["type"] == "tool-call"]
    answered = draw(some.permutations(made))[: draw(some.integers(0, len(made)))]
    stray = draw(some.lists(ids, max_size=1))
    results = [
        message("tool", result(call_id, draw(words), draw(media)))
        for call_id in [*answered, *stray]
    ]
    if draw(some.booleans()):  # stored together
        results = [message("tool", *(part for each in results for part in each["content"]))]
    return [answer, *results]


@some.composite
def turns(draw: some.DrawFn) -> list[HistoryMessage]:
    turn = [message("user", text("a question"), *draw(beside))]
    for step in draw(some.lists(steps(), max_size=3)):
        turn += step
    return turn


@some.composite
def histories(draw: some.DrawFn) -> list[HistoryMessage]:
    """Turns, cut anywhere by an interruption, from the last summary on if there is one."""
    history: list[HistoryMessage] = []
    for turn in draw(some.lists(turns(), min_size=1, max_size=4)):
        history += turn[: draw(some.integers(1, len(turn)))]
    if draw(some.booleans()):
        summary = message("user", text("Summary of what was said before."))
        history = [summary, *history[draw(some.integers(0, len(history) - 1)) :]]
    return history


@given(histories())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example([message("user", text("hi")), message("assistant", text("\n\n"), call("a", "look", ""))])
def test_every_prefix_is_accepted(history: list[HistoryMessage]) -> None:
    for end in range(1, len(history) + 1):
        accepted(chat_messages(["be kind"], history[:end]))


@given(histories())
@settings(max_examples=100, deadline=None)
def test_what_was_said_stays_said(history: list[HistoryMessage]) -> None:
    """A prompt that drops the user's words would be accepted too."""
    sent = str([m["content"] for m in chat_messages([], history) if m["role"] == "user"])
    asked = [m for m in history if m["role"] == "user"]
    assert sent.count("a question") + sent.count("Summary of what") == len(asked)
