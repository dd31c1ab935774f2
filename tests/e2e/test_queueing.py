"""Messages sent while a turn runs wait their turn, each with the settings it was typed with."""

from tests.e2e.client import Client, call, message
from tests.e2e.fleet import Fleet, Process, add_model, registered
from tests.e2e.view import offered, text_of


async def test_queued_messages_run_in_order_with_their_own_settings(
    worker: Process, fleet: Fleet, admin: Client, member: Client
) -> None:
    other_model = await add_model(admin, fleet.model_url, model="scripted-other")
    async with registered(admin, "queue", fleet.demo_url, allow_in_plan_mode=True) as planner:
        await _queued_with_settings(member, planner["id"], other_model)


async def test_the_queue_has_an_end(worker: Process, member: Client) -> None:
    first = await member.create(call("demo__slow", seconds=1))
    queued = [await member.say(first.chat_id, f"/say {number}") for number in range(20)]
    refused = await member.http.post(
        f"/chats/{first.chat_id}/messages", json=message("/say one too many")
    )
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    for number, posted in enumerate(queued):
        assert (await member.ended(posted))["status"] == "completed"
        assert text_of((await member.messages(posted))[-1]) == str(number)
    turns = (await member.get(f"/chats/{first.chat_id}/turns"))["turns"]
    assert len(turns) == 21


async def test_a_failed_turn_keeps_its_queue_until_somebody_speaks(
    worker: Process, member: Client
) -> None:
    first = await member.create("/hang 0.5", "/fail 401")
    async with member.watching(first.chat_id) as watch:
        waiting = await member.say(first.chat_id, "/say I waited")
        await watch.over(first.turn_id)
        assert (watch.view.status, len(watch.view.queue)) == ("error", 1)
        last = await member.say(first.chat_id, "/say after you")
        assert last.body["queued"]
        assert await watch.over(last.turn_id) == await member.screen(first.chat_id)
        assert watch.view.queue == []
    answers = [text_of((await member.messages(posted))[-1]) for posted in (waiting, last)]
    assert answers == ["I waited", "after you"]


async def _queued_with_settings(member: Client, planner_id: str, other_model: str) -> None:
    first = await member.create(call("demo__slow", seconds=1), "/say first")
    chat = first.chat_id
    async with member.watching(chat) as watch:
        bare = await member.say(chat, "/tools", mcp_server_ids=[])
        plan = await member.say(chat, "/tools", mcp_server_ids=[planner_id], plan_mode="plan")
        other = await member.say(chat, "/tools", plan_mode="", model_config_id=other_model)
        queue = await watch.until(lambda view: view.queue if len(view.queue) == 3 else None)
        assert [entry["id"] for entry in queue or ()] == [
            posted.turn_id for posted in (bare, plan, other)
        ]
        assert all(posted.body["queued"] for posted in (bare, plan, other))
        assert await watch.over(other.turn_id) == await member.screen(chat)

    turns = [await member.turn(posted) for posted in (first, bare, plan, other)]
    assert [turn["status"] for turn in turns] == ["completed"] * 4
    assert [turn["plan_mode"] for turn in turns] == [None, None, "plan", None]
    assert [turn["mcp_server_ids"] for turn in turns[1:]] == [[], [planner_id], [planner_id]]
    assert [turn["model_config_id"] == other_model for turn in turns] == [False] * 3 + [True]
    starts = [turn["started_at"] for turn in turns]
    assert starts == sorted(starts)
    tools = [offered((await member.messages(posted))[-1]) for posted in (bare, plan, other)]
    assert [bool(names) for names in tools] == [False, True, True]
    history = (await member.get(f"/chats/{chat}/messages?limit=50"))["messages"]
    told = [entry["turn_id"] for entry in reversed(history) if entry["role"] != "tool"]
    assert list(dict.fromkeys(told)) == [turn["id"] for turn in turns]
