"""What a call asks for, by provider kind and model options."""

import json

import pytest

from chatd.core.models import EffortOptions, ModelOptions
from chatd.core.tools import OfferedTool
from chatd.llm.request import encode, request_body
from tests.llm.provider import model

TOOL = OfferedTool(
    name="demo__add",
    original_name="add",
    description="Adds.",
    parameters={"type": "object", "properties": {"a": {"type": "integer"}}},
)
MESSAGES = [{"role": "user", "content": "hi"}]


def test_a_plain_call_leaves_what_is_not_configured_to_the_provider() -> None:
    assert request_body(model("http://x"), MESSAGES, (), asked_effort=None) == {
        "model": "test-model",
        "messages": MESSAGES,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 32_000,
    }


def test_openai_has_its_own_name_for_the_limit() -> None:
    body = request_body(model(None, provider="openai"), MESSAGES, (), asked_effort=None)
    assert body["max_completion_tokens"] == 32_000
    assert "max_tokens" not in body


def test_options_are_sent_even_when_they_are_zero() -> None:
    options = ModelOptions(
        max_output_tokens=5,
        temperature=0,
        top_p=0,
        presence_penalty=0,
        frequency_penalty=-1,
        parallel_tool_calls=False,
    )
    called = model("http://x", options=options)
    body = request_body(called, MESSAGES, (TOOL,), asked_effort=None, tool_choice="none")
    sent = {key: body[key] for key in body if key not in ("model", "messages", "tools")}
    assert sent == {
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "temperature": 0,
        "top_p": 0,
        "presence_penalty": 0,
        "frequency_penalty": -1,
        "tool_choice": "none",
        "parallel_tool_calls": False,
    }


def test_tools_are_offered_as_functions() -> None:
    body = request_body(model("http://x"), MESSAGES, (TOOL,), asked_effort=None)
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "demo__add",
                "description": "Adds.",
                "parameters": TOOL.parameters,
            },
        }
    ]
    assert "tool_choice" not in body


def test_without_tools_nothing_is_said_about_tools() -> None:
    called = model("http://x", options=ModelOptions(parallel_tool_calls=True))
    body = request_body(called, MESSAGES, (), asked_effort=None, tool_choice="none")
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(body)


@pytest.mark.parametrize(
    ("limits", "asked", "sent"),
    [
        (None, "high", None),
        (EffortOptions(default="low"), None, "low"),
        (EffortOptions(default="low"), "high", "high"),
        (EffortOptions(default="low", max="medium"), "max", "medium"),
        (EffortOptions(), None, None),
    ],
)
def test_effort_is_what_was_asked_within_the_limits(
    limits: EffortOptions | None, asked: str | None, sent: str | None
) -> None:
    called = model("http://x", options=ModelOptions(reasoning_effort=limits))
    body = request_body(called, MESSAGES, (), asked_effort=asked)  # pyright: ignore[reportArgumentType]
    assert body.get("reasoning_effort") == sent


def test_what_fast_json_cannot_write_is_written_the_slow_way() -> None:
    body = {"number": 2**70, "text": "a\ud83d"}
    assert json.loads(encode(body)) == {"number": 2**70, "text": "a\ufffd"}
