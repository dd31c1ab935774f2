"""Plan mode in the terminal: plans and questions in full, and what may be said to them."""

from typing import Any, cast

import orjson

from chatd.cli.chat.wording import quoted, short
from chatd.core.tools import JsonObject, ToolResult
from chatd.tools.planning import read_proposal, read_questions

APPROVE = "/approve-plan"
SWITCHES = {"/plan on": "plan", "/plan off": ""}

TOLD = {
    "propose_plan": f"{APPROVE} carries it out; say anything else to have it changed.",
    "ask_user_question": "What you say next is the answer.",
}
"""After the calls that end a turn in plan mode."""


def shown(call: JsonObject) -> str | None:
    """A call that proposes a plan or asks something; None for others, also for a mistaken one."""
    reader = {"propose_plan": _plan, "ask_user_question": _questions}.get(call["tool_name"])
    if reader is None:
        return None
    try:
        arguments: object = orjson.loads(call["args"])
    except orjson.JSONDecodeError:
        return None
    return reader(cast(JsonObject, arguments)) if isinstance(arguments, dict) else None


def approval(text: str) -> str | None:
    """What else is said with an approval; None when this is none."""
    word, *rest = text.split(maxsplit=1)
    return "".join(rest).strip() if word == APPROVE else None


def approving(words: str, file_id: str | None) -> JsonObject:
    """The body that approves a plan, the one that was read if any was."""
    plan = {"file_id": file_id} if file_id is not None else {}
    return plan | ({"content": [{"type": "text", "text": words}]} if words else {})


def proposed(message: JsonObject) -> str | None:
    """The id of the last plan that this message says was proposed."""
    told = [
        orjson.loads(part["result"])["file_id"]
        for part in message["content"]
        if part["type"] == "tool-result"
        and part["tool_name"] == "propose_plan"
        and not part["is_error"]
    ]
    return told[-1] if told else None


def _plan(arguments: JsonObject) -> str | None:
    proposal = read_proposal(arguments)
    if isinstance(proposal, ToolResult):
        return None
    title = f" {short(arguments['title'])}" if arguments.get("title") else ""
    return f"Plan{title}:\n{quoted(proposal.content)}"


def _questions(arguments: JsonObject) -> str | None:
    if read_questions(arguments) is not None:
        return None
    return "\n".join(_question(question) for question in arguments["questions"])


def _question(question: dict[str, Any]) -> str:
    lines = [f"{question['header']}: {question['question']}"]
    lines += [
        f"  {number}. {option['label']}: {option['description']}"
        for number, option in enumerate(question["options"], 1)
    ]
    return "You are asked:\n" + "\n".join(quoted(line) for line in lines)
