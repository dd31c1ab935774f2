"""The strict validator accepts what providers document, and refuses each violation by its name."""

from typing import Any

import pytest

from chatd.dev.scripted_model.strict import violations

USER: dict[str, Any] = {"role": "user", "content": "hi"}
SYSTEM: dict[str, Any] = {"role": "system", "content": "be kind"}
ANSWER: dict[str, Any] = {"role": "assistant", "content": "hello"}
IMAGE: dict[str, Any] = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aWNv"}}


def calls(*ids: str, name: str = "look", arguments: object = "{}") -> dict[str, Any]:
    made = [
        {"id": i, "type": "function", "function": {"name": name, "arguments": arguments}}
        for i in ids
    ]
    return {"role": "assistant", "content": None, "tool_calls": made}


def result(call_id: str, content: object = "found") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def said(role: str, *parts: object) -> dict[str, Any]:
    return {"role": role, "content": list(parts)}


def text(words: str = "see") -> dict[str, Any]:
    return {"type": "text", "text": words}


GOOD: dict[str, list[dict[str, Any]]] = {
    "a question": [USER],
    "a conversation": [SYSTEM, USER, ANSWER, USER],
    "two users in a row": [USER, USER],
    "calls in any order of results": [USER, calls("a", "b"), result("b"), result("a"), ANSWER],
    "steps of one call": [USER, calls("a"), result("a"), calls("b"), result("b")],
    "an empty result": [USER, calls("a"), result("a", "")],
    "a result in parts": [USER, calls("a"), result("a", [text()])],
    "a picture behind the results": [USER, calls("a"), result("a"), said("user", text(), IMAGE)],
    "an id of forty": [USER, calls("x" * 40), result("x" * 40)],
}

BAD: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "nothing": ("nothing but instructions", []),
    "only instructions": ("nothing but instructions", [SYSTEM]),
    "late instructions": ("instructions after", [USER, SYSTEM]),
    "an assistant first": ("begin with the user", [ANSWER, USER]),
    "an unknown role": ("unknown role", [USER, {"role": "function", "content": "x"}]),
    "no result": ("no result right after", [USER, calls("a"), USER]),
    "no result at the end": ("no result right after", [USER, calls("a")]),
    "one of two results": ("'b' has no result", [USER, calls("a", "b"), result("a"), ANSWER]),
    "a result twice": ("no open call", [USER, calls("a"), result("a"), result("a")]),
    "an orphan": ("no open call", [USER, result("a")]),
    "a result too late": ("no open call", [USER, calls("a"), USER, result("a")]),
    "an id twice in a step": ("is taken", [USER, calls("a", "a"), result("a"), result("a")]),
    "an id twice in a conversation": (
        "is taken",
        [USER, calls("a"), result("a"), calls("a"), result("a")],
    ),
    "a long id": ("1 to 40", [USER, calls("x" * 41), result("x" * 41)]),
    "an empty id": ("1 to 40", [USER, calls(""), result("")]),
    "a name with a dot": ("does not match", [USER, calls("a", name="a.b"), result("a")]),
    "a long name": ("does not match", [USER, calls("a", name="x" * 65), result("a")]),
    "arguments that are no JSON": (
        "not a JSON object",
        [USER, calls("a", arguments="{"), result("a")],
    ),
    "arguments that are a list": (
        "not a JSON object",
        [USER, calls("a", arguments="[]"), result("a")],
    ),
    "arguments that are an object already": (
        "not a JSON object",
        [USER, calls("a", arguments={}), result("a")],
    ),
    "calls of a user": ("only the assistant", [{**calls("a"), **USER}]),
    "no calls at all": ("at least one call", [USER, {**ANSWER, "tool_calls": []}]),
    "a call without a function": (
        "a call without",
        [USER, {**ANSWER, "tool_calls": [{"id": "a", "type": "function"}]}],
    ),
    "an empty question": ("blank content", [{"role": "user", "content": ""}]),
    "a blank answer": ("blank content", [USER, {"role": "assistant", "content": "\n"}]),
    "a blank text beside a call": ("blank content", [USER, {**calls("a"), "content": " "}]),
    "an answer without content": ("no content", [USER, {"role": "assistant", "content": None}]),
    "no parts": ("neither text nor", [said("user")]),
    "a blank part": ("blank text part", [said("user", text(""))]),
    "a picture from the assistant": ("from assistant", [USER, said("assistant", IMAGE)]),
    "a picture in a result": ("from tool", [USER, calls("a"), result("a", [IMAGE])]),
    "a picture from the system": ("from system", [said("system", IMAGE), USER]),
    "a picture of nothing": ("malformed", [said("user", {"type": "image_url"})]),
    "a part of no kind": ("type None", [said("user", "words")]),
}


@pytest.mark.parametrize("messages", GOOD.values(), ids=GOOD)
def test_it_accepts(messages: list[dict[str, Any]]) -> None:
    assert violations(messages) == []


@pytest.mark.parametrize(("what", "messages"), BAD.values(), ids=BAD)
def test_it_refuses(what: str, messages: list[dict[str, Any]]) -> None:
    assert any(what in found for found in violations(messages)), violations(messages)
