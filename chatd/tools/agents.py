"""The tools for sub-agents: what the model is told of them, and how their arguments are read."""

from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from chatd.core.agents import (
    AGENT_TYPES,
    MAX_ACTIVE,
    MAX_SPAWNED,
    MAX_WAIT_S,
    WAIT_S,
    AgentType,
)
from chatd.core.chats import MAX_TITLE
from chatd.core.text import clean
from chatd.core.tools import BuiltinTool, JsonObject, ToolResult, ToolSpec

MAX_WORDS = 100_000
"""Characters of a prompt or a message."""

_CHAT_ID = {"type": "string", "description": "The agent's chat_id, as spawn_agent answered it."}


def _tool(
    name: str,
    title: str,
    description: str,
    properties: JsonObject,
    required: tuple[str, ...] = (),
    *,
    reads: bool = False,
    **more: Any,
) -> BuiltinTool:
    spec = ToolSpec(
        name=name,
        title=title,
        description=description,
        input_schema={
            "type": "object",
            "properties": properties,
            "required": list(required),
            "additionalProperties": False,
        },
        read_only=reads,
        idempotent=True,
        destructive=False,
    )
    return BuiltinTool(spec, root_only=True, repeatable=reads, **more)


AGENT_TOOLS: tuple[BuiltinTool, ...] = (
    _tool(
        "spawn_agent",
        "Start a sub-agent",
        "Start a sub-agent: another conversation that works on a task of its own while you go on. "
        "It knows nothing of this conversation: the prompt must say all it needs. Read its answer "
        f"with wait_agent. At most {MAX_ACTIVE} at work at the same time, {MAX_SPAWNED} a turn.",
        {
            "type": {
                "type": "string",
                "enum": list(AGENT_TYPES),
                "description": "explore: finds things out and changes nothing. "
                "general: anything else.",
            },
            "prompt": {"type": "string", "description": "The task, complete in itself."},
            "title": {"type": "string", "description": "A few words that name the task."},
        },
        ("type", "prompt"),
    ),
    _tool(
        "wait_agent",
        "Wait for a sub-agent",
        "Wait until a sub-agent has ended, and read its status and its last words. To wait for "
        "several, call this for all of them in one step.",
        {
            "chat_id": _CHAT_ID,
            "timeout_seconds": {
                "type": "integer",
                "minimum": 0,
                "maximum": MAX_WAIT_S,
                "description": f"How long at most; 0 only looks. Default: {WAIT_S}.",
            },
        },
        ("chat_id",),
        reads=True,
    ),
    _tool(
        "message_agent",
        "Speak to a sub-agent",
        "Send a message to a sub-agent. One that is at work reads it when it has ended its turn, "
        "or, with interrupt, at once.",
        {
            "chat_id": _CHAT_ID,
            "message": {"type": "string"},
            "interrupt": {
                "type": "boolean",
                "description": "Stop what it is doing first. Default: false.",
            },
        },
        ("chat_id", "message"),
        parallel=False,
        in_plan_mode=False,
    ),
    _tool(
        "interrupt_agent",
        "Stop a sub-agent",
        "Stop what a sub-agent is doing. It keeps what it has said, and can be spoken to again.",
        {"chat_id": _CHAT_ID},
        ("chat_id",),
        parallel=False,
        in_plan_mode=False,
    ),
    _tool(
        "list_agents",
        "List the sub-agents",
        "This conversation's sub-agents, those at work first, with their status and last words.",
        {},
        reads=True,
    ),
)


@dataclass(frozen=True, slots=True)
class Spawn:
    type: AgentType
    prompt: str
    title: str | None


@dataclass(frozen=True, slots=True)
class Wait:
    chat_id: UUID
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Message:
    chat_id: UUID
    words: str
    interrupt: bool


def read_spawn(arguments: JsonObject) -> Spawn | ToolResult:
    """Checked arguments, or what is wrong with them."""
    kind, title = arguments.get("type"), arguments.get("title")
    if kind not in AGENT_TYPES:
        return wrong(f"type must be one of: {', '.join(AGENT_TYPES)}.")
    prompt = _words(arguments, "prompt")
    if isinstance(prompt, ToolResult):
        return prompt
    if title is not None and not isinstance(title, str):
        return wrong("title must be a string.")
    title = clean(" ".join(title.split()))[:MAX_TITLE] if title else None
    return Spawn(cast(AgentType, kind), prompt, title or None)


def read_wait(arguments: JsonObject) -> Wait | ToolResult:
    chat_id = read_chat_id(arguments)
    if isinstance(chat_id, ToolResult):
        return chat_id
    timeout = arguments.get("timeout_seconds")
    if timeout is None:
        timeout = WAIT_S
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        return wrong("timeout_seconds must be a number.")
    if not 0 <= timeout <= MAX_WAIT_S:
        return wrong(f"timeout_seconds must be from 0 to {MAX_WAIT_S}.")
    return Wait(chat_id, timeout)


def read_message(arguments: JsonObject) -> Message | ToolResult:
    chat_id = read_chat_id(arguments)
    if isinstance(chat_id, ToolResult):
        return chat_id
    words = _words(arguments, "message")
    if isinstance(words, ToolResult):
        return words
    interrupt = arguments.get("interrupt") or False
    if not isinstance(interrupt, bool):
        return wrong("interrupt must be true or false.")
    return Message(chat_id, words, interrupt)


def read_chat_id(arguments: JsonObject) -> UUID | ToolResult:
    value = arguments.get("chat_id")
    if not isinstance(value, str):
        return wrong("chat_id must be a string.")
    try:
        return UUID(value)
    except ValueError:
        return unknown(value)


def unknown(chat_id: object) -> ToolResult:
    """There is no such chat, or it is not this one's."""
    return wrong(
        f"There is no sub-agent of this conversation with the chat_id {str(chat_id)[:50]!r}."
        " list_agents shows them."
    )


def wrong(text: str) -> ToolResult:
    return ToolResult(text, is_error=True, outcome="failed")


def _words(arguments: JsonObject, name: str) -> str | ToolResult:
    value = arguments.get(name)
    if not isinstance(value, str) or not value.strip():
        return wrong(f"{name} must be a string that says something.")
    if len(value) > MAX_WORDS:
        return wrong(f"{name} must have at most {MAX_WORDS} characters.")
    return clean(value)
