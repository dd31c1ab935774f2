"""Open items: parking a turn on them, answering them, letting them expire."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from chatd.core.errors import LeaseLost
from chatd.core.items import NewItem
from chatd.core.tools import JsonObject
from chatd.core.work import CallOutcome, Claim, Notice, PlannedCall
from chatd.store.agents import answered_already
from chatd.store.audit import note_approval
from chatd.store.db import Database, dump, load
from chatd.store.ids import new_id
from chatd.store.stopping import CANCEL_ITEMS
from chatd.store.versions import bump
from chatd.store.work import patiently

ITEM_VIEW = """
    jsonb_build_object('id', i.id, 'kind', i.kind, 'state', i.state,
        'tool_call_id', i.tool_call_id, 'deadline', i.deadline, 'created_at', i.created_at,
        'child_chat_id', i.child_chat_id) || i.data
"""

OPEN_ITEMS = f"""
    (SELECT json_agg({ITEM_VIEW} ORDER BY i.created_at, i.id) FROM open_items i
        WHERE i.turn_id = t.id AND i.state = 'open') AS open_items
"""
"""A column of turns: what each waits for."""

ACTIVE_STATUS = """
    CASE WHEN active.status = 'requires_action' AND NOT EXISTS (SELECT 1 FROM open_items i
        WHERE i.turn_id = active.id AND i.state = 'open' AND i.kind <> 'child')
    THEN 'running' ELSE active.status END AS active_status
"""
"""A column of `active` turns: one that waits for sub-agents only is shown as running."""

_LOCK_CHAT = text("SELECT id FROM chats WHERE id = :chat FOR NO KEY UPDATE")

_FENCE = text(
    "SELECT status FROM turns WHERE id = :turn AND lease_id = :lease AND chat_id = :chat FOR UPDATE"
)

_OUTCOMES = text(
    """UPDATE tool_calls j SET state = r.state, result = r.result,
        finished_at = coalesce(j.finished_at, clock_timestamp())
    FROM json_to_recordset(CAST(:outcomes AS json)) AS r(step int, position int, state text,
        result json)
    WHERE j.turn_id = :turn AND j.step = r.step AND j.position = r.position"""
)

_WAITING = text(
    """UPDATE tool_calls SET state = 'waiting'
    WHERE turn_id = :turn AND step = :step AND position = ANY (CAST(:positions AS int[]))"""
)

_INSERT = text(
    """INSERT INTO open_items (id, chat_id, turn_id, owner_id, step, position, tool_call_id, kind,
        data, memory, child_chat_id, deadline, version)
    SELECT n.id, :chat, :turn, :owner, n.step, n.position, n.tool_call_id, n.kind, n.data,
        n.memory, n.child_chat_id, clock_timestamp() + make_interval(secs => n.deadline_s), :version
    FROM jsonb_to_recordset(CAST(:items AS jsonb)) AS n(id uuid, step int, position int,
        tool_call_id text, kind text, data jsonb, memory jsonb, child_chat_id uuid,
        deadline_s float8)
    ON CONFLICT (id) DO NOTHING"""
)

_PARK = text(
    """UPDATE turns SET status = 'requires_action', parked_at = clock_timestamp(), lost = 0,
        lease_id = NULL, lease_expires_at = NULL, worker_id = NULL, commits = commits + 1,
        notices = notices || CAST(:notices AS jsonb), version = :version
    WHERE id = :turn"""
)

_TOUCH = text("UPDATE turns SET version = :version WHERE id = :turn")

_LOCK_ITEM = text(
    """SELECT i.id, i.turn_id, i.state, i.kind, i.data, i.answer, i.owner_id
    FROM open_items i WHERE i.id = :item AND i.chat_id = :chat FOR UPDATE"""
)

_ANSWER = text(
    """UPDATE open_items SET state = :state, answer = CAST(:answer AS jsonb), answered_by = :by,
        answered_at = clock_timestamp(), version = :version
    WHERE id = :item AND state = 'open'"""
)

_ANSWER_CHILD = text(
    """UPDATE open_items SET state = 'answered', answer = CAST(:answer AS jsonb),
        answered_at = clock_timestamp(), version = :version
    WHERE turn_id = :turn AND child_chat_id = :child AND state = 'open'"""
)

_GO_ON = text(
    """UPDATE turns t SET status = 'pending', pending_at = clock_timestamp(), version = :version,
        parked_seconds = t.parked_seconds
            + extract(epoch FROM clock_timestamp() - coalesce(t.parked_at, clock_timestamp())),
        parked_at = NULL
    WHERE t.id = :turn AND t.status = 'requires_action'
        AND NOT EXISTS (SELECT 1 FROM open_items i WHERE i.turn_id = t.id AND i.state = 'open')"""
)

_OVERDUE = """
SELECT id, chat_id FROM open_items WHERE state = 'open' AND deadline < clock_timestamp() LIMIT 100
"""

_ANSWERED = "SELECT state, answer FROM open_items WHERE id = $1"


@dataclass(frozen=True, slots=True)
class ParkedTurn:
    """`status`: requires_action; pending when all it waits for is known by now; interrupting when
    the user stopped it before."""

    status: str
    version: int


async def park_turn(
    db: Database,
    claim: Claim,
    step: int,
    outcomes: Sequence[CallOutcome],
    waiting: Sequence[tuple[PlannedCall, NewItem]],
    notices: Sequence[Notice],
) -> ParkedTurn:
    """Give the turn back until its items are answered; its finished calls are journaled.

    Raises `LeaseLost`, also when the connection broke at COMMIT and the turn had parked.
    """

    async def write() -> Any:
        async with db.statements() as connection:
            status = await _fenced(connection, claim)
            if status != "running":
                return ParkedTurn(status, 0)
            asked = [item for _, item in waiting]
            known = await answered_already(connection, claim.chat_id, asked)
            version = await bump(connection, claim.chat_id)
            await _write_parked(connection, claim, step, outcomes, waiting, version)
            ending = {"turn": claim.turn_id, "version": version, "notices": dump(notices)}
            await connection.execute(_PARK, ending)
            return ParkedTurn(await _go_on(connection, claim, known, version), version)

    return await patiently(write)


async def _go_on(
    connection: AsyncConnection, claim: Claim, known: Mapping[UUID, JsonObject], version: int
) -> str:
    """Answer what is known of sub-agents already; whether the turn then waits for anything."""
    turn = {"turn": claim.turn_id, "version": version}
    for chat_id, answer in known.items():
        await connection.execute(_ANSWER_CHILD, turn | {"child": chat_id, "answer": dump(answer)})
    goes_on = known and (await connection.execute(_GO_ON, turn)).rowcount
    return "pending" if goes_on else "requires_action"


async def _fenced(connection: AsyncConnection, claim: Claim) -> str:
    await connection.execute(_LOCK_CHAT, {"chat": claim.chat_id})
    ours = {"turn": claim.turn_id, "lease": claim.lease_id, "chat": claim.chat_id}
    status = (await connection.execute(_FENCE, ours)).scalar_one_or_none()
    if status is None:
        raise LeaseLost
    return status


async def _write_parked(
    connection: AsyncConnection,
    claim: Claim,
    step: int,
    outcomes: Sequence[CallOutcome],
    waiting: Sequence[tuple[PlannedCall, NewItem]],
    version: int,
) -> None:
    turn = {"turn": claim.turn_id}
    rows = [
        {"step": o.step, "position": o.position, "state": o.state, "result": o.result}
        for o in outcomes
    ]
    await connection.execute(_OUTCOMES, turn | {"outcomes": dump(rows)})
    # What waits for an approval has not begun: it stays as intended.
    begun = [planned.position for planned, item in waiting if item.kind != "approval"]
    await connection.execute(_WAITING, turn | {"step": step, "positions": begun})
    # What a call asked whose end has not taken it back must not hold up the turn.
    await connection.execute(CANCEL_ITEMS, {"turns": [claim.turn_id], "version": version})
    await _insert(connection, claim, [new_id() for _ in waiting], waiting, version)


async def _insert(
    connection: AsyncConnection,
    claim: Claim,
    ids: Sequence[UUID],
    waiting: Sequence[tuple[PlannedCall, NewItem]],
    version: int,
) -> None:
    rows = [
        {
            "id": str(item_id),
            "step": planned.step,
            "position": planned.position,
            "tool_call_id": planned.call.id,
            "kind": item.kind,
            "data": item.data,
            "memory": item.memory,
            "child_chat_id": str(item.child_chat_id) if item.child_chat_id else None,
            "deadline_s": item.deadline_s,
        }
        for item_id, (planned, item) in zip(ids, waiting, strict=True)
    ]
    place = {"chat": claim.chat_id, "turn": claim.turn_id, "owner": claim.owner_id}
    await connection.execute(_INSERT, place | {"version": version, "items": dump(rows)})


async def open_item(
    db: Database, claim: Claim, item_id: UUID, planned: PlannedCall, item: NewItem
) -> int:
    """Ask while the call stays open and the turn runs on, once however often it is written.

    Answers the chat's version. Raises `LeaseLost`.
    """

    async def write() -> Any:
        async with db.statements() as connection:
            await _fenced(connection, claim)
            version = await bump(connection, claim.chat_id)
            await _insert(connection, claim, [item_id], [(planned, item)], version)
            await connection.execute(_TOUCH, {"turn": claim.turn_id, "version": version})
        return version

    return await patiently(write)


async def read_answer(db: Database, item_id: UUID) -> tuple[str, JsonObject | None]:
    """The item's state and its answer."""
    row = await db.fetch_one(_ANSWERED, item_id)
    if row is None:
        return "cancelled", None
    return row["state"], load(row["answer"])


async def lock_item(connection: AsyncConnection, chat_id: UUID, item_id: UUID) -> Any:
    """The item's row, None if the chat has no such item. The chat is to be locked before."""
    found = await connection.execute(_LOCK_ITEM, {"item": item_id, "chat": chat_id})
    return found.one_or_none()


async def close_item(
    connection: AsyncConnection,
    item: Any,
    version: int,
    *,
    state: str = "answered",
    answer: Mapping[str, Any] | None = None,
    by: UUID | None = None,
) -> bool:
    """Answer a locked item; whether its turn is runnable now, as it was the last one."""
    await connection.execute(
        _ANSWER,
        {
            "item": item.id,
            "state": state,
            "answer": dump(answer) if answer is not None else None,
            "by": by,
            "version": version,
        },
    )
    turn = {"turn": item.turn_id, "version": version}
    if (await connection.execute(_GO_ON, turn)).rowcount:
        return True
    await connection.execute(_TOUCH, turn)
    return False


async def find_overdue(db: Database) -> Sequence[tuple[UUID, UUID]]:
    """Items whose deadline has passed, with their chats."""
    return [(row["id"], row["chat_id"]) for row in await db.fetch(_OVERDUE)]


async def expire_item(
    db: Database, item_id: UUID, chat_id: UUID, *, state: str = "expired"
) -> int | None:
    """Close an item that nobody answered. Answers the chat's version, None if there was no need."""
    async with db.statements() as connection:
        await connection.execute(_LOCK_CHAT, {"chat": chat_id})
        item = await lock_item(connection, chat_id, item_id)
        if item is None or item.state != "open":
            return None
        version = await bump(connection, chat_id)
        await close_item(connection, item, version, state=state)
        if item.kind == "approval":
            await note_approval(connection, None, item_id, "deny")
    return version
