"""How a turn must have ended: as without weather, but for calls whose outcome nobody can know."""

import re
from typing import Any

from tests.e2e.client import Posted
from tests.e2e.journal import appended, journaled
from tests.weather.ground import Ground, Scene

UNKNOWN = "not known whether this call took effect"

CLOSED = {"done", "failed", "unknown", "denied", "cancelled"}

Told = list[tuple[str, Any]]


async def told(ground: Ground, scene: Scene) -> Told:
    """The chat's messages, without what differs from run to run: ids, times and counts."""
    found = await ground.member.get(f"/chats/{scene.chat_id}/messages?limit=200")
    ids: dict[str, str] = {}
    return [
        (message["role"], [_part(part, ids, scene.token) for part in message["content"]])
        for message in reversed(found["messages"])
    ]


def _part(part: dict[str, Any], ids: dict[str, str], token: str) -> dict[str, Any]:
    kept = {k: v for k, v in part.items() if k not in ("created_at", "completed_at")}
    kept.pop("mcp_server_config_id", None)
    if "tool_call_id" in kept:
        known = ids.setdefault(kept["tool_call_id"], f"call {len(ids) + 1}")
        kept["tool_call_id"] = known
    for key in ("text", "args"):
        if key in kept:
            kept[key] = kept[key].replace(token, "TOKEN")
    if kept.get("tool_name", "").endswith("__append") and "result" in kept:
        kept["result"] = re.sub(r"^\d+$", "COUNT", kept["result"])
    return kept


async def as_undisturbed(ground: Ground, scene: Scene, calm: Told, *, may_lose: bool) -> None:
    """The same messages; an unsafe call that was lost is told to be unknown, in every place."""
    now = await told(ground, scene)
    unknown = await _journal_is_closed(ground, scene)
    assert may_lose or not unknown, "a call was lost, and no worker"
    lost = 0
    for role, parts in now:
        for part in parts:
            if role == "tool" and UNKNOWN in part["result"]:
                lost += 1
                assert part["is_error"]
                part |= {"result": "COUNT", "is_error": False}
    assert lost == unknown, "what the model was told is not what the journal knows"
    assert now == calm


async def _journal_is_closed(ground: Ground, scene: Scene) -> int:
    """How many calls are unknown. What is done has been done once, the rest at most once."""
    rows = [row for posted in scene.posted for row in await journaled(ground.db, posted)]
    assert {row["state"] for row in rows} <= CLOSED, rows
    unsafe = [row for row in rows if row["tool_name"].endswith("__append")]
    times = appended(ground.fleet, scene.token)
    assert times <= 1, f"an unsafe call ran {times} times"
    assert all(times == 1 for row in unsafe if row["state"] == "done")
    return sum(row["state"] == "unknown" for row in rows)


async def same_for_all(ground: Ground, scene: Scene) -> None:
    """Who watched all the time, or came back, sees what somebody sees who comes now."""
    last = scene.posted[-1].turn_id
    await scene.reader.until(lambda view: view.ended(last) and view.status == "waiting", 10)
    assert scene.reader.view.snapshot() == await ground.member.screen(scene.chat_id)


async def ended(ground: Ground, posted: Posted) -> Any:
    """The turn if it is over; also asked while the front door has no database."""
    answer = await ground.member.http.get(f"/chats/{posted.chat_id}/turns/{posted.turn_id}")
    turn = answer.json()
    over = answer.status_code == 200 and turn["finished_at"] is not None
    return turn if over else None
