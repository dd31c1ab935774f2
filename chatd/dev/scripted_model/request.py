"""A chat completions request: checked as strictly as real providers check it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, cast

import orjson

from chatd.dev.scripted_model.refusal import Refusal
from chatd.dev.scripted_model.strict import violations

MODEL = "scripted-model"

_SYSTEM = {"system", "developer"}
_ROLES = _SYSTEM | {"user", "assistant", "tool"}
_STEPS_DONE = re.compile(r"Steps done in this turn: (\d+)\.")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
# Tells conversations apart that say the same, if the client sends any of it.
_IDENTITY = ("user", "safety_identifier", "prompt_cache_key", "metadata")

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    model: str
    messages: Sequence[Object]
    tools: Sequence[Object]
    stream: bool
    include_usage: bool
    prompt_tokens: int
    identity: Object
    schema: str = ""
    """The name of the JSON schema that the answer has to follow."""
    may_call: bool = True

    @property
    def step(self) -> int:
        """The number of this model call in its turn, from 1.

        A summary of our own that stands right before the user's message has counted the steps
        that it took the place of.
        """
        said = self._last_said
        before = self.messages[said - 1] if said > 0 else None
        summary = _text(before["content"]) if before and before["role"] == "user" else ""
        done = _STEPS_DONE.search(summary)
        later = self.messages[said + 1 :]
        return 1 + int(done[1] if done else 0) + sum(m["role"] == "assistant" for m in later)

    def summary(self) -> str:
        """Of what precedes the last message, which asks for it."""
        said = self._last_said
        past = replace(self, messages=self.messages[:said])
        in_turn = bool(past.messages) and past.messages[-1]["role"] != "assistant"
        done = past.step - 1 if in_turn else 0
        return f"A summary of {len(past.messages)} messages. Steps done in this turn: {done}."

    @property
    def user_text(self) -> str:
        said = self._last_said
        return (_text(self.messages[said]["content"]) if said >= 0 else None) or ""

    @property
    def _last_said(self) -> int:
        """The place of the user's last message, -1 without one.

        Tool messages take text only, so clients send a tool's pictures and sounds in a user message
        right behind them: nobody said that.
        """
        for place in reversed(range(len(self.messages))):
            behind = self.messages[place - 1]["role"] if place else ""
            message = self.messages[place]
            if message["role"] == "user" and not (behind == "tool" and _shows(message)):
                return place
        return -1

    @property
    def tool_result(self) -> str | None:
        return self._last_text("tool")

    @property
    def tool_names(self) -> list[str]:
        return [tool["function"]["name"] for tool in self.tools]

    def tool(self, name: str) -> Object | None:
        return next((tool for tool in self.tools if tool["function"]["name"] == name), None)

    def conversation(self) -> bytes:
        """A key of what was said. Not by the system: its prompt may tell the time."""
        said = [message for message in self.messages if message["role"] not in _SYSTEM]
        return sha256(orjson.dumps([said, self.identity])).digest()

    def _last_text(self, role: str) -> str | None:
        for message in reversed(self.messages):
            if message["role"] == role:
                return _text(message["content"])
        return None


def _shows(message: Object) -> bool:
    """Whether the message has parts that are not text."""
    content = message["content"]
    if not isinstance(content, list):
        return False
    return any(part.get("type") != "text" for part in cast("list[Object]", content))


def read_request(body: bytes) -> Request:
    """Raises `Refusal`."""
    raw = _json_object(body)
    _check_model(raw.get("model"))
    messages = _check_messages(raw.get("messages"))
    tools = _check_tools(raw.get("tools"))
    for limit in ("max_tokens", "max_completion_tokens"):
        _check_limit(limit, raw.get(limit))
    stream, include_usage = _check_stream(raw.get("stream"), raw.get("stream_options"))
    if raw.get("n") not in (None, 1):
        raise _invalid("only one choice is supported", "n")
    return Request(
        model=raw["model"],
        messages=messages,
        tools=tools,
        stream=stream,
        include_usage=include_usage,
        prompt_tokens=len(body) // 4,
        identity={key: raw[key] for key in _IDENTITY if key in raw},
        schema=_schema_name(raw.get("response_format")),
        may_call=raw.get("tool_choice") != "none",
    )


def known_model(model: str) -> bool:
    return model.startswith("scripted")


def no_such_model(model: str) -> Refusal:
    return Refusal(404, f"The model '{model}' does not exist", "model_not_found", "model")


def _schema_name(response_format: object) -> str:
    if response_format is None:
        return ""
    wanted = cast("dict[str, Any]", response_format)
    try:
        return wanted["json_schema"]["name"] if wanted["type"] == "json_schema" else ""
    except (TypeError, KeyError):
        raise _invalid("'response_format' is malformed", "response_format") from None


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _invalid(f"the body is not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise _invalid("the body is not a JSON object")
    return cast("dict[str, Any]", raw)


def _check_model(model: object) -> None:
    if not isinstance(model, str) or not model:
        raise _invalid("you must provide a model parameter", "model")
    if not known_model(model):
        raise no_such_model(model)


def _check_messages(raw: object) -> list[dict[str, Any]]:
    messages = _objects(raw, "messages")
    open_calls: list[str] = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if message.get("role") not in _ROLES:
            raise _invalid(f"'{where}' has no known role", where)
        _check_content(message, where)
        open_calls = _follow_calls(message, open_calls, where)
    if open_calls:
        raise _unanswered(open_calls, "messages")
    for violation in violations(messages):
        raise _invalid(violation, "messages")
    return messages


def _check_content(message: Object, where: str) -> None:
    content = message.get("content")
    if isinstance(content, str):
        return
    if isinstance(content, list):
        _objects(cast("list[object]", content), f"{where}.content")
        return
    if content is None and message["role"] == "assistant" and message.get("tool_calls"):
        return
    raise _invalid(f"'{where}.content' must be a string or an array of parts", f"{where}.content")


def _follow_calls(message: Object, open_calls: list[str], where: str) -> list[str]:
    """Which tool calls still want an answer after this message."""
    if message["role"] == "tool":
        answered = message.get("tool_call_id")
        if answered not in open_calls:
            raise _invalid("a message with role 'tool' must answer a preceding tool call", where)
        return [call for call in open_calls if call != answered]
    if open_calls:
        raise _unanswered(open_calls, where)
    try:
        return [call["id"] for call in message.get("tool_calls") or ()]
    except (TypeError, KeyError):
        raise _invalid(f"'{where}.tool_calls' is malformed", f"{where}.tool_calls") from None


def _check_tools(raw: object) -> list[dict[str, Any]]:
    if raw is None:
        return []
    tools = _objects(raw, "tools")
    names: set[str] = set()
    for index, tool in enumerate(tools):
        where = f"tools[{index}].function.name"
        try:
            name = tool["function"]["name"]
        except (TypeError, KeyError):
            raise _invalid(f"'{where}' is missing", where) from None
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            raise _invalid(f"'{where}' must match ^[a-zA-Z0-9_-]{{1,64}}$", where)
        if name in names:
            raise _invalid(f"'{where}' is taken: tool names must be unique", where)
        names.add(name)
    return tools


def _objects(raw: object, param: str) -> list[dict[str, Any]]:
    items = cast("list[object]", raw) if isinstance(raw, list) else []
    if not items or not all(isinstance(item, dict) for item in items):
        raise _invalid(f"'{param}' must be an array of at least one object", param)
    return cast("list[dict[str, Any]]", items)


def _check_stream(stream: object, options: object) -> tuple[bool, bool]:
    """Whether to stream, and whether the usage comes with it."""
    if not isinstance(stream, bool | None):
        raise _invalid("'stream' must be a boolean", "stream")
    if options is None:
        return bool(stream), False
    if not stream or not isinstance(options, dict):
        raise _invalid("'stream_options' is only allowed when 'stream' is true", "stream_options")
    return True, bool(cast("dict[str, object]", options).get("include_usage"))


def _check_limit(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _invalid(f"'{name}' must be an integer of at least 1", name)


def _unanswered(open_calls: list[str], where: str) -> Refusal:
    return _invalid(
        "an assistant message with 'tool_calls' must be followed by tool messages responding to "
        f"each 'tool_call_id'; missing: {', '.join(open_calls)}",
        where,
    )


def _invalid(message: str, param: str | None = None) -> Refusal:
    return Refusal(400, message, param=param)


def _text(content: str | Sequence[Object]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content if part.get("type") == "text")
