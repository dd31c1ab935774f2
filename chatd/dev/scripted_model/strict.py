"""What the strictest providers ask of a request's messages, from their documented rules.

Each rule is one that some provider behind this API answers with 400: OpenAI (roles, pairing of
calls and results, length of ids, names, kinds of parts), Anthropic (ids unique in a conversation,
no blank text, the user begins) and those that read arguments as JSON before they are asked.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import orjson

Object = Mapping[str, Any]

MAX_ID = 40

_INSTRUCTIONS = ("system", "developer")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_PARTS = {
    "system": ("text",),
    "developer": ("text",),
    "user": ("text", "image_url", "input_audio", "file"),
    "assistant": ("text", "refusal"),
    "tool": ("text",),
}
_SHAPES = {
    "image_url": ("url",),
    "input_audio": ("data", "format"),
    "file": (),
}


def violations(messages: Sequence[Object]) -> list[str]:
    """Everything a strict provider would refuse, each with the place of the message."""
    found: list[str] = []
    conversation = _Conversation()
    for place, message in enumerate(messages):
        found += [f"messages[{place}]: {what}" for what in conversation.next(message)]
    found += [f"at the end: {what}" for what in conversation.unanswered()]
    if not conversation.begun:
        found.append("there is nothing but instructions")
    return found


class _Conversation:
    """What the messages so far allow next."""

    def __init__(self) -> None:
        self.begun = False
        self._open: list[str] = []
        self._ids: set[str] = set()

    def next(self, message: Object) -> list[str]:
        role = message.get("role")
        if role not in _PARTS:
            return [f"unknown role {role!r}"]
        found = _content(role, message)
        if role == "tool":
            return found + self._result(message.get("tool_call_id"))
        found += self.unanswered()
        self._open = []
        if role in _INSTRUCTIONS:
            return found + (["instructions after the conversation began"] if self.begun else [])
        if not self.begun and role != "user":
            found.append("the conversation does not begin with the user")
        self.begun = True
        if "tool_calls" in message:
            found += self._calls(role, message["tool_calls"])
        return found

    def unanswered(self) -> list[str]:
        return [f"call {call_id!r} has no result right after it" for call_id in self._open]

    def _result(self, call_id: object) -> list[str]:
        if call_id not in self._open:
            return [f"a result for {call_id!r}, which is no open call"]
        self._open.remove(cast(str, call_id))
        return []

    def _calls(self, role: str, calls: object) -> list[str]:
        if role != "assistant":
            return ["only the assistant makes calls"]
        if not isinstance(calls, list) or not calls:
            return ["tool_calls must be a list of at least one call"]
        found: list[str] = []
        for call in cast("list[Any]", calls):
            problems, call_id = _call(call)
            if call_id in self._ids:
                problems.append(f"the id {call_id!r} is taken")
            self._ids.add(call_id)
            self._open.append(call_id)
            found += problems
        return found


def _call(call: Any) -> tuple[list[str], str]:
    """What is wrong with one call, and its id."""
    try:
        kind, call_id, function = call["type"], call["id"], call["function"]
        name, arguments = function["name"], function["arguments"]
    except (TypeError, KeyError) as error:
        return [f"a call without {error}"], ""
    found: list[str] = []
    if kind != "function":
        found.append(f"a call of type {kind!r}")
    if not isinstance(call_id, str) or not 0 < len(call_id) <= MAX_ID:
        found.append(f"the id {call_id!r} does not have 1 to {MAX_ID} characters")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        found.append(f"the name {name!r} does not match {_NAME.pattern}")
    if not _is_object(arguments):
        found.append(f"the arguments {arguments!r} are not a JSON object")
    return found, str(call_id)


def _is_object(arguments: object) -> bool:
    if not isinstance(arguments, str):
        return False
    try:
        return isinstance(orjson.loads(arguments), dict)
    except orjson.JSONDecodeError:
        return False


def _content(role: str, message: Object) -> list[str]:
    content = message.get("content")
    if content is None:
        calls = role == "assistant" and message.get("tool_calls")
        return [] if calls else ["no content"]
    if isinstance(content, str):
        blank = role != "tool" and not content.strip()
        return ["blank content"] if blank else []
    if not isinstance(content, list) or not content:
        return ["content is neither text nor a list of parts"]
    return [what for part in cast("list[Any]", content) for what in _part(role, part)]


def _part(role: str, part: Any) -> list[str]:
    known = cast(Object, part) if isinstance(part, dict) else {}
    kind = known.get("type")
    if not isinstance(kind, str) or kind not in _PARTS[role]:
        return [f"a part of type {kind!r} from {role}"]
    value: Any = known.get(kind)
    if kind in ("text", "refusal"):
        return [] if isinstance(value, str) and value.strip() else [f"a blank {kind} part"]
    shape = cast(Object, value) if isinstance(value, dict) else None
    if shape is None or not all(shape.get(key) for key in _SHAPES[kind]):
        return [f"a malformed {kind} part"]
    return []
