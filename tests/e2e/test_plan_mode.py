"""From a question over a plan to its execution, as a frontend sees it."""

from typing import Any

import orjson

from tests.e2e.client import Client, Events, call
from tests.e2e.fleet import Fleet, Process, registered
from tests.e2e.journal import appended
from tests.e2e.view import View
from tests.strict import accepted

QUESTION = {
    "header": "Depth",
    "question": "How deep?",
    "options": [
        {"label": "shallow", "description": "one foot"},
        {"label": "deep", "description": "six feet"},
    ],
}


async def test_a_question_a_plan_and_its_approval(
    worker: Process, fleet: Fleet, admin: Client, member: Client
) -> None:
    async with registered(admin, "digger", fleet.demo_url) as digger:
        dig = call("digger__append", text="dug")
        posted = await member.create(
            call("ask_user_question", questions=[QUESTION]),
            "/say never",
            plan_mode="plan",
            mcp_server_ids=[digger["id"]],
        )
        assert (await member.ended(posted))["status"] == "completed"
        plan = f"# Dig\n\n1. Six feet.\n{dig}\n/messages\n"
        asked = await member.say(posted.chat_id, "deep", call("propose_plan", content=plan), dig)
        assert (await member.ended(asked))["status"] == "completed"
        assert appended(fleet, "dug") == 0
        proposed = await member.get(f"/chats/{posted.chat_id}/plan")
        assert (proposed["content"], proposed["approved_at"]) == (plan, None)
        path = f"/chats/{posted.chat_id}/plan/approve"
        async with member.streamed(path, {"file_id": proposed["file_id"]}) as events:
            turn, view = await _followed(events)
        assert (turn["plan_mode"], view.turns[turn["id"]]) == (None, "completed")
        assert appended(fleet, "dug") == 1
    last = max(view.messages)
    accepted(orjson.loads(view.messages[last]["content"][0]["text"]))
    chat = await member.get(f"/chats/{posted.chat_id}")
    assert chat["plan_mode"] is None
    assert [file["name"] for file in chat["files"]] == ["plan-1.md"]


async def _followed(events: Events) -> tuple[Any, View]:
    """A turn's own stream, to its end."""
    first = await anext(events)
    view = View()
    async for event in events:
        view.take(event)
    return first.data["turn"], view
