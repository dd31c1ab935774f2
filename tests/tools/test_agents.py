"""The arguments of the tools for sub-agents, as models write them."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from chatd.core.agents import MAX_TEXT, MAX_WAIT_S, WAIT_S, Agent
from chatd.core.chats import MAX_TITLE
from chatd.core.situation import Situation
from chatd.core.tools import ToolResult
from chatd.policy.builtins import builtin_refusal
from chatd.tools.agents import (
    AGENT_TOOLS,
    MAX_WORDS,
    Message,
    Spawn,
    Wait,
    read_message,
    read_spawn,
    read_wait,
)
from chatd.tools.results import READ_RESULT

ID = UUID("018f0000-0000-7000-8000-000000000001")


@pytest.mark.parametrize(
    ("read", "arguments", "says"),
    [
        (read_spawn, {"prompt": "x"}, "type must be one of: general, explore."),
        (read_spawn, {"type": ["general"], "prompt": "x"}, "type must be"),
        (read_spawn, {"type": "general"}, "prompt must be a string"),
        (read_spawn, {"type": "general", "prompt": "  "}, "prompt must be"),
        (read_spawn, {"type": "general", "prompt": "x" * (MAX_WORDS + 1)}, "at most"),
        (read_spawn, {"type": "general", "prompt": "x", "title": 3}, "title must be"),
        (read_wait, {}, "chat_id must be a string."),
        (read_wait, {"chat_id": "the first one"}, "There is no sub-agent"),
        (read_wait, {"chat_id": str(ID), "timeout_seconds": "300"}, "must be a number"),
        (read_wait, {"chat_id": str(ID), "timeout_seconds": True}, "must be a number"),
        (read_wait, {"chat_id": str(ID), "timeout_seconds": -1}, "from 0 to"),
        (read_wait, {"chat_id": str(ID), "timeout_seconds": float("nan")}, "from 0 to"),
        (read_wait, {"chat_id": str(ID), "timeout_seconds": MAX_WAIT_S + 1}, "from 0 to"),
        (read_message, {"message": "x"}, "chat_id must be"),
        (read_message, {"chat_id": str(ID)}, "message must be a string"),
        (read_message, {"chat_id": str(ID), "message": "x", "interrupt": "yes"}, "interrupt must"),
    ],
)
def test_wrong_arguments_are_told_to_the_model(
    read: Callable[[dict[str, Any]], object], arguments: dict[str, Any], says: str
) -> None:
    result = read(arguments)
    assert isinstance(result, ToolResult)
    assert result.is_error
    assert says in result.text


def test_right_arguments_are_read() -> None:
    assert read_spawn({"type": "explore", "prompt": "x"}) == Spawn("explore", "x", None)
    assert read_wait({"chat_id": str(ID)}) == Wait(ID, WAIT_S)
    assert read_wait({"chat_id": str(ID), "timeout_seconds": 0}) == Wait(ID, 0)
    assert read_message({"chat_id": str(ID), "message": "x", "interrupt": True}) == Message(
        ID, "x", True
    )


def test_a_title_is_one_short_line() -> None:
    spawn = read_spawn({"type": "general", "prompt": "x", "title": " two\nlines " + "x" * 300})
    assert isinstance(spawn, Spawn)
    assert spawn.title is not None
    assert spawn.title.startswith("two lines x")
    assert len(spawn.title) == MAX_TITLE


def test_what_the_database_cannot_hold_is_replaced() -> None:
    spawn = read_spawn({"type": "general", "prompt": "a\x00b\ud800", "title": "\x00"})
    assert spawn == Spawn("general", "a\ufffdb\ufffd", "\ufffd")


def test_long_last_words_are_cut_in_a_report() -> None:
    agent = Agent(ID, "general", "t", "completed", settled=True, text="é" * MAX_TEXT)
    text = agent.report()["text"]
    assert len(text.encode()) <= MAX_TEXT
    assert "bytes of this answer were removed" in text


def test_an_agent_that_is_not_done_is_reported_as_running() -> None:
    agent = Agent(ID, "general", "t", "queued", settled=False)
    assert agent.report("why")["status"] == "running"


@pytest.mark.parametrize(
    ("name", "planning"),
    [
        ("spawn_agent", True),
        ("wait_agent", True),
        ("list_agents", True),
        ("message_agent", False),
        ("interrupt_agent", False),
    ],
)
def test_agents_are_for_root_chats_and_some_tools_for_planning(name: str, planning: bool) -> None:
    (tool,) = [tool for tool in AGENT_TOOLS if tool.spec.name == name]
    assert builtin_refusal(tool, Situation()) is None
    refused = builtin_refusal(tool, Situation(is_child=True))
    assert refused is not None
    assert refused.reason == "root_only"
    assert (builtin_refusal(tool, Situation(plan_mode=True)) is None) is planning


def test_a_chat_that_explores_only_reads() -> None:
    (spawn,) = [tool for tool in AGENT_TOOLS if tool.spec.name == "spawn_agent"]
    refusal = builtin_refusal(spawn, Situation(explore=True))
    assert refusal is not None
    assert refusal.reason == "explore_only_reads"
    assert builtin_refusal(READ_RESULT, Situation(is_child=True, explore=True)) is None
