"""How the tests ask the scripted model, and what they read in its answers."""

from dataclasses import dataclass
from typing import Any

from openai import AsyncOpenAI

DEMO_TOOLS = ("demo__add", "demo__current_time")


def tool(name: str) -> dict[str, Any]:
    numbers = {"a": {"type": "integer"}, "b": {"anyOf": [{"type": "integer"}, {"type": "number"}]}}
    required = ["a", "b"] if name.endswith("add") else []
    parameters = {"type": "object", "properties": numbers, "required": required}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


@dataclass
class Reply:
    text: str | None
    calls: list[tuple[str, str]]
    call_ids: list[str]
    finish_reason: str | None
    pieces: int


class Asker:
    """One conversation's requests, streamed or not."""

    def __init__(self, client: AsyncOpenAI, *, stream: bool) -> None:
        self._client = client
        self._stream = stream

    async def __call__(self, *messages: Any, tools: tuple[str, ...] = (), **more: Any) -> Reply:
        first, *others = messages
        body: dict[str, Any] = {
            "model": "scripted-model",
            "messages": [{"role": "user", "content": first}, *others],
            **({"tools": [tool(name) for name in tools]} if tools else {}),
            **more,
        }
        if not self._stream:
            return _whole(await self._client.chat.completions.create(**body))
        return await _streamed(await self._client.chat.completions.create(**body, stream=True))


def _whole(completion: Any) -> Reply:
    (choice,) = completion.choices
    calls = choice.message.tool_calls or []
    return Reply(
        choice.message.content,
        [(call.function.name, call.function.arguments) for call in calls],
        [call.id for call in calls],
        choice.finish_reason,
        1,
    )


async def _streamed(events: Any) -> Reply:
    texts: list[str] = []
    calls: dict[int, list[str]] = {}
    ids: list[str] = []
    finish_reason: Any = None
    async for event in events:
        choice: Any = event.choices[0]
        finish_reason = choice.finish_reason
        if choice.delta.content:
            texts.append(str(choice.delta.content))
        parts: list[Any] = choice.delta.tool_calls or []
        for call in parts:
            if call.id:
                ids.append(call.id)
                calls[call.index] = [call.function.name]
            calls[call.index].append(call.function.arguments)
    spoken = [(name, "".join(arguments)) for name, *arguments in calls.values()]
    text = None if spoken else "".join(texts)
    return Reply(text, spoken, ids, finish_reason, max(len(texts), *map(len, calls.values()), 0))


def step_done(call_id: str, result: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a client appends after a model call with one tool call."""
    call = {"id": call_id, "type": "function", "function": {"name": "a", "arguments": "{}"}}
    return (
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call_id, "content": result},
    )
