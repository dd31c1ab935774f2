"""The body of a chat-completions call."""

import json
from collections.abc import Sequence
from typing import Any, Literal

import orjson

from chatd.core.models import Model, ReasoningEffort, effort
from chatd.core.text import clean_json
from chatd.core.tools import OfferedTool

ToolChoice = Literal["auto", "none", "required"]
"""`none` keeps the tools in the request, so that the provider's prompt cache still hits."""


def request_body(
    model: Model,
    messages: Sequence[dict[str, Any]],
    tools: Sequence[OfferedTool],
    *,
    asked_effort: ReasoningEffort | None,
    tool_choice: ToolChoice | None = None,
) -> dict[str, Any]:
    """Options that the model config leaves out are left to the provider."""
    options = model.options
    # OpenAI's reasoning models refuse the old name; most compatible servers know no other.
    limit = "max_completion_tokens" if model.provider == "openai" else "max_tokens"
    body: dict[str, Any] = {
        "model": model.name,
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        limit: options.max_output_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
        "reasoning_effort": effort(options, asked_effort),
    }
    if tools:
        body["tools"] = [_function(tool) for tool in tools]
        # Both are errors in a request without tools.
        body["tool_choice"] = tool_choice
        body["parallel_tool_calls"] = options.parallel_tool_calls
    return {key: value for key, value in body.items() if value is not None}


def encode(body: dict[str, Any]) -> bytes:
    """As JSON; the slow way also takes integers beyond 64 bits and cleans lone surrogates."""
    try:
        return orjson.dumps(body)
    except TypeError:
        return json.dumps(clean_json(body), allow_nan=False).encode()


def _function(tool: OfferedTool) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
        },
    }
