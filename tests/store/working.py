"""What the store's tests write as a worker would, and how they read what became of it."""

from typing import Any
from uuid import UUID

from chatd.core.errors import turn_error
from chatd.core.items import NewItem
from chatd.core.messages import NewMessage, ToolResultPart
from chatd.core.work import CallOutcome, Claim, Committed, Notice
from chatd.store import work
from chatd.store.chats import get_turn, list_messages, list_turns
from chatd.store.db import Database
from chatd.store.items import park_turn
from chatd.store.sweeping import expire_turn
from tests.seed import Seed, answer, planned_call

NOTICE = Notice(code="unreachable", server_id=None, message="m")

CALLS = [planned_call(1), planned_call(2, safe=True)]


def result(position: int, text: str = "3", step: int = 1) -> NewMessage:
    part = ToolResultPart(
        type="tool-result",
        tool_call_id=f"call-{step}-{position}",
        tool_name="demo__add",
        result=text,
        is_error=False,
    )
    return NewMessage("tool", [part], step, position)


def outcome(position: int, state: Any = "done", text: str = "3") -> CallOutcome:
    return CallOutcome(1, position, state, dict(result(position, text).content[0]))


async def commit_calls(seed: Seed, claim: Claim) -> Committed:
    """A first step with two calls."""
    return await work.commit_step(
        seed.db, claim, [answer("let me see", 1, *CALLS)], CALLS, [NOTICE], 0.0
    )


async def finish(seed: Seed, claim: Claim, *messages: NewMessage, status: str = "completed") -> Any:
    error = turn_error("generic", "no") if status == "failed" else None
    return await work.finish_turn(seed.db, claim, messages, status, error, [], None)


async def told(seed: Seed, chat_id: UUID) -> list[tuple[str, str]]:
    """Role and text of the chat's messages, oldest first."""
    found = await list_messages(seed.db, seed.actor.user_id, chat_id, limit=200)
    parts = [(message["role"], message["content"][0]) for message in reversed(found["messages"])]
    return [(role, part.get("text", part.get("result"))) for role, part in parts]


async def turn_of(seed: Seed, claim: Claim) -> Any:
    return await get_turn(seed.db, seed.actor.user_id, claim.chat_id, claim.turn_id)


async def journal(seed: Seed, claim: Claim) -> list[tuple[int, str]]:
    rows = await seed.db.fetch(
        "SELECT position, state FROM tool_calls WHERE turn_id = $1 ORDER BY step, position",
        claim.turn_id,
    )
    return [(row["position"], row["state"]) for row in rows]


async def everything(db: Database) -> list[str]:
    """All that a refused write must leave as it is."""
    tables = ("chats", "turns", "chat_messages", "tool_calls")
    rows = await db.fetch(
        " UNION ALL ".join(f"SELECT to_jsonb(x)::text FROM {t} x" for t in tables)
    )
    return sorted(row[0] for row in rows)


async def run_out(seed: Seed, claim: Claim) -> None:
    """The lease is over; nobody has noticed yet."""
    await seed.db.fetch(
        "UPDATE turns SET lease_expires_at = clock_timestamp() - interval '1 second' WHERE id = $1",
        claim.turn_id,
    )


async def lose(seed: Seed, claim: Claim) -> None:
    """The lease runs out, and a sweeper finds it."""
    await run_out(seed, claim)
    assert await expire_turn(seed.db, claim.turn_id, claim.chat_id)


async def statuses(seed: Seed, chat_id: UUID) -> list[str]:
    """The chat's turns, oldest first."""
    found = await list_turns(seed.db, seed.actor.user_id, chat_id, limit=100)
    return [turn["status"] for turn in reversed(found)]


async def queue(seed: Seed, chat_id: UUID) -> list[str]:
    """What waits, in its order."""
    found = await list_messages(seed.db, seed.actor.user_id, chat_id)
    return [queued["content"][0]["text"] for queued in found["queued_messages"]]


async def park(seed: Seed, claim: Claim) -> None:
    """A first step whose first call waits for its client and whose second is done."""
    await commit_calls(seed, claim)
    item = NewItem("tool_result", {"tool_name": "demo__add"})
    await park_turn(seed.db, claim, 1, [outcome(2)], [(CALLS[0], item)], [])


async def child_of(seed: Seed, chat_id: UUID, words: str = "child") -> UUID:
    """A chat below this root, with a pending turn."""
    child = await seed.chat_id(words)
    await seed.db.fetch(
        "UPDATE chats SET parent_chat_id = $2, root_chat_id = $2 WHERE id = $1", child, chat_id
    )
    return child


async def item_states(seed: Seed, chat_id: UUID) -> list[str]:
    rows = await seed.db.fetch("SELECT state FROM open_items WHERE chat_id = $1", chat_id)
    return [row["state"] for row in rows]


async def version_of(seed: Seed, chat_id: UUID) -> int:
    return (await seed.db.fetch("SELECT version FROM chats WHERE id = $1", chat_id))[0]["version"]
