"""From a step of the script, or no script at all, to what the model says or calls."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from chatd.dev.scripted_model.request import Request
from chatd.dev.scripted_model.script import (
    Answer,
    Call,
    Echo,
    Long,
    Messages,
    Say,
    Tool,
    ToolCall,
    Tools,
)

DONE = "done"
TITLE_SCHEMA = "propose_title"

# The tools of the demo MCP server, by what a message may call them.
_DEMO = {
    "current_time": re.compile(r"current[_ ]time|what time|the time", re.IGNORECASE),
    **{
        name: re.compile(rf"\b{name}\b", re.IGNORECASE)
        for name in ("add", "echo", "slow", "fail", "big", "picture", "append")
    },
}
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
# How chatd shows a conversation that wants a title.
_SAID = re.compile(r"^User: (.*)$", re.MULTILINE)
_TITLE_WORD = re.compile(r"(?<![/\w])\w[\w'-]*")
_TITLE_WORDS = 6
_WORD = re.compile(r"\s*\S+\s*")
# Beyond it a text goes out in blocks: it is data, and nobody watches it being written.
_WATCHED = 10_000
_BLOCK = 8_192


@dataclass(frozen=True)
class Text:
    pieces: Sequence[str]
    # Seconds between two pieces.
    gap: float = 0.0


Content = Text | Call


def answer_to(request: Request, answer: Answer | None) -> Content:
    """Play one answer of the script."""
    match answer:
        case Long(tokens, gap):
            return Text(long_text(tokens), gap)
        case Call(calls):
            return _call(request, calls)
        case _:
            return Text(words(_say(request, answer)))


def improvise(request: Request) -> Content:
    """Without a script: one sentence, after one call if the message names a demo tool.

    Who offers tools that may not be called wants the conversation summed up.
    """
    if not request.may_call:
        return Text(words(request.summary()))
    called = _named_tool(request) if request.step <= 2 else None
    if request.step == 1:
        if called is not None:
            return Call((called,))
        quoted = _short(request.user_text)
        said = f'You said "{quoted}", and I am only a scripted model.'
        return Text(words(said))
    if called is not None and request.tool_result is not None:
        return Text(words(f"{called.name} answered: {_short(request.tool_result)}"))
    return Text(words(DONE))


def propose_title(request: Request) -> Text:
    """A title as JSON: the first words that the user said, without what a script consists of."""
    said = _SAID.search(request.user_text)
    found = _TITLE_WORD.findall(said.group(1) if said else request.user_text)
    title = " ".join(found[:_TITLE_WORDS]).capitalize() or "Scripted chat"
    return Text((orjson.dumps({"title": title}).decode(),))


def long_text(tokens: int) -> list[str]:
    return [f"word{number} " for number in range(1, tokens + 1)]


def words(text: str) -> list[str]:
    if len(text) > _WATCHED:
        return [text[start : start + _BLOCK] for start in range(0, len(text), _BLOCK)]
    return _WORD.findall(text) or ([text] if text else [])


def _say(request: Request, answer: Say | Tools | Tool | Messages | Echo | None) -> str:
    match answer:
        case Say(text):
            return text
        case Tools():
            return orjson.dumps(request.tool_names).decode()
        case Tool(name):
            tool = request.tool(name)
            return _not_offered(name) if tool is None else orjson.dumps(tool).decode()
        case Messages():
            return orjson.dumps(request.messages).decode()
        case Echo():
            return "no tool result" if request.tool_result is None else request.tool_result
        case None:
            return DONE


def _call(request: Request, calls: tuple[ToolCall, ...]) -> Content:
    for call in calls:
        if request.tool(call.name) is None:
            return Text(words(_not_offered(call.name)))
    return Call(calls)


def _not_offered(name: str) -> str:
    return f"tool not offered: {name}"


def _named_tool(request: Request) -> ToolCall | None:
    text = request.user_text
    for name in request.tool_names:
        pattern = _DEMO.get(name.rpartition("__")[2])
        if name in text or (pattern is not None and pattern.search(text)):
            return ToolCall(name, _arguments(request.tool(name) or {}, text))
    return None


def _arguments(tool: Mapping[str, Any], text: str) -> str:
    numbers = [float(number) for number in _NUMBER.findall(text)]
    schema: Mapping[str, Any] = tool["function"].get("parameters") or {}
    return orjson.dumps(_sample(schema, text, numbers)).decode()


def _sample(schema: Mapping[str, Any], text: str, numbers: list[float]) -> Any:
    """The smallest value that fits: its numbers are those of the message, its text the message."""
    if "enum" in schema:
        return schema["enum"][0]
    kinds = schema.get("type") or [option.get("type") for option in schema.get("anyOf", ())]
    if "object" in kinds:
        properties = schema.get("properties", {})
        return {
            name: _sample(properties.get(name, {}), text, numbers)
            for name in schema.get("required", ())
        }
    if "integer" in kinds or "number" in kinds:
        number = numbers.pop(0) if numbers else 1.0
        return int(number) if number.is_integer() else number
    if "boolean" in kinds:
        return True
    return [] if "array" in kinds else text


def _short(text: str, limit: int = 200) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[:limit] + "…"
