"""A worker's reads and fenced writes of a turn. Without the lease they write nothing."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import text

from chatd.core.errors import LeaseLost, Stale, TurnError, Unavailable
from chatd.core.messages import NewMessage
from chatd.core.times import rfc3339
from chatd.core.work import (
    CallOutcome,
    Claim,
    Committed,
    Finished,
    Held,
    Notice,
    PlannedCall,
    message_row,
)
from chatd.store import hot
from chatd.store.db import Database, dump, fetch_within, load

AWAY_PAUSE_S = 0.3
"""Between tries while PostgreSQL is away."""


async def claim_turns(
    db: Database,
    worker_id: str,
    limit: int,
    *,
    served: Sequence[UUID] = (),
    per_owner: int = 0,
    limited: bool = False,
) -> list[Claim]:
    """Claim up to `limit` runnable turns, the owner with the fewest running first.

    `served`: owners this worker has claimed for, the latest last; they come last among equals.
    `per_owner`: how many turns of one owner may run at once; 0 is no limit. `limited`: a model
    provider has a limit; who does not know of it claims nothing.
    """
    args = (limit, worker_id, list(served), per_owner)
    rows = await (_claimed_limited(db, *args) if limited else db.fetch(hot.CLAIM, *args))
    return [
        Claim(
            turn_id=row["id"],
            chat_id=row["chat_id"],
            owner_id=row["owner_id"],
            lease_id=row["lease_id"],
            attempt=row["attempt"],
            commits=row["commits"],
            version=row["version"],
            waited_s=row["waited_s"],
            traceparent=row["traceparent"],
        )
        for row in rows
    ]


async def _claimed_limited(db: Database, *args: object) -> Sequence[asyncpg.Record]:
    """Each statement sees what was committed before it: the lock comes first."""
    async with db.statements() as connection:
        await connection.execute(text(hot.LOCK_CLAIMS))
        return await fetch_within(connection, hot.CLAIM_LIMITED, *args)


async def commit_step(
    db: Database,
    claim: Claim,
    messages: Sequence[NewMessage],
    calls: Sequence[PlannedCall],
    notices: Sequence[Notice],
    first_token_ago_s: float | None,
) -> Committed:
    """Commit a step's assistant message and journal its calls as `intended`."""
    row = await written_once(
        db,
        claim,
        messages,
        lambda: db.fetch_one(
            hot.COMMIT_STEP,
            claim.chat_id,
            claim.turn_id,
            claim.lease_id,
            dump([message_row(message) for message in messages]),
            dump([_call_row(call) for call in calls]),
            dump(notices),
            first_token_ago_s,
        ),
    )
    return committed_from(row)


async def commit_results(
    db: Database,
    claim: Claim,
    messages: Sequence[NewMessage],
    outcomes: Sequence[CallOutcome],
    notices: Sequence[Notice],
) -> Committed:
    """Turn a step's results into tool messages, all together; journal the `outcomes` with them."""
    row = await written_once(
        db,
        claim,
        messages,
        lambda: db.fetch_one(
            hot.COMMIT_RESULTS,
            claim.chat_id,
            claim.turn_id,
            claim.lease_id,
            dump([message_row(message) for message in messages]),
            dump(
                [
                    {"step": o.step, "position": o.position, "state": o.state, "result": o.result}
                    for o in outcomes
                ]
            ),
            dump(notices),
        ),
    )
    return committed_from(row)


async def mark_sent(
    db: Database, claim: Claim, step: int, positions: Sequence[int], policy_version: int
) -> frozenset[int]:
    """Journal calls as `sent`; answers which may leave now: none of a turn that was stopped.

    Raises `Stale` when policy moved since `policy_version`: nothing was marked.
    """
    row = await patiently(
        lambda: db.fetch_one(
            hot.MARK_SENT, claim.turn_id, claim.lease_id, step, list(positions), policy_version
        )
    )
    if row is None:
        raise LeaseLost
    if row["policy_version"] != policy_version:
        raise Stale
    return frozenset(row["positions"])


async def record_result(db: Database, claim: Claim, outcome: CallOutcome) -> None:
    """Keep one call's result while its siblings are still out."""
    row = await patiently(
        lambda: db.fetch_one(
            hot.RECORD_RESULT,
            claim.turn_id,
            claim.lease_id,
            outcome.step,
            outcome.position,
            outcome.state,
            dump(outcome.result),
        )
    )
    if row is None:
        raise LeaseLost


async def finish_turn(
    db: Database,
    claim: Claim,
    messages: Sequence[NewMessage],
    status: str,
    error: TurnError | None,
    notices: Sequence[Notice],
    first_token_ago_s: float | None,
) -> Finished:
    """End the turn and promote the chat's queue head (unless it failed), in one transaction.

    A turn found `interrupting` ends `interrupted`, whatever `status` says. When the connection
    broke at COMMIT and the turn had ended, this raises `LeaseLost`: it is no longer ours.
    """
    args = (
        claim.chat_id,
        claim.turn_id,
        claim.lease_id,
        dump([message_row(message) for message in messages]),
        status,
        dump(error) if error is not None else None,
        dump(notices),
        first_token_ago_s,
    )
    while True:
        row = await patiently(lambda: db.fetch_one(hot.FINISH, *args))
        if row is None:
            raise LeaseLost
        if row["fresh"]:
            return Finished(
                version=row["version"],
                status=row["status"],
                messages=_message_ids(row["messages"]),
                promoted_id=row["promoted_id"],
                more=row["more"],
            )


async def hand_back(db: Database, claim: Claim, notices: Sequence[Notice] = ()) -> int:
    """Give a running turn back to the queue for another worker. Answers the chat's version."""
    row = await patiently(
        lambda: db.fetch_one(
            hot.HAND_BACK, claim.chat_id, claim.turn_id, claim.lease_id, dump(notices)
        )
    )
    if row is None:
        raise LeaseLost
    return row["version"]


async def renew_leases(db: Database, claims: Sequence[Claim]) -> dict[UUID, Held]:
    """Renew in one statement. A missing id is locked just now or no longer ours: ask `owned`."""
    rows = await db.fetch(
        hot.RENEW, [claim.turn_id for claim in claims], [claim.lease_id for claim in claims]
    )
    return {row["id"]: Held(row["status"], row["policy_version"]) for row in rows}


async def owned(db: Database, claims: Sequence[Claim]) -> frozenset[UUID]:
    """Which of these turns still carry our lease."""
    rows = await db.fetch(hot.LEASES, [claim.turn_id for claim in claims])
    leases = {row["id"]: row["lease_id"] for row in rows}
    return frozenset(
        claim.turn_id for claim in claims if leases.get(claim.turn_id) == claim.lease_id
    )


Write = Callable[[], Awaitable[asyncpg.Record | None]]


async def patiently(write: Callable[[], Awaitable[Any]]) -> Any:
    """What may run twice, repeated while PostgreSQL is away; the lease bounds it."""
    while True:
        try:
            return await write()
        except Unavailable:
            await asyncio.sleep(AWAY_PAUSE_S)


async def written_once(
    db: Database, claim: Claim, messages: Sequence[NewMessage], write: Write
) -> Any:
    """Write; when the connection broke at COMMIT, read back before writing again.

    The messages' unique place tells whether the first try landed.
    """
    try:
        row = await write()
    except Unavailable:
        row = await patiently(lambda: _read_back_or_write(db, claim, messages, write))
    if row is None:
        raise LeaseLost
    return row


async def _read_back_or_write(
    db: Database, claim: Claim, messages: Sequence[NewMessage], write: Write
) -> asyncpg.Record | None:
    await asyncio.sleep(AWAY_PAUSE_S)
    first = messages[0]
    place = (claim.turn_id, claim.lease_id, first.step, first.position, len(messages))
    found = await db.fetch_one(hot.LANDED, *place)
    if found is None or found["messages"] is not None:
        return found
    try:
        return await write()
    except asyncpg.UniqueViolationError:
        # The first try's session outlived its connection and was still at it when we looked.
        return await db.fetch_one(hot.LANDED, *place)


def committed_from(row: Any) -> Committed:
    return Committed(
        version=row["version"],
        commits=row["commits"],
        status=row["status"],
        messages=_message_ids(row["messages"]),
    )


def _message_ids(value: Any) -> tuple[tuple[int, str], ...]:
    return tuple((row[0], rfc3339(row[1]) or "") for row in load(value) or ())


def _call_row(planned: PlannedCall) -> dict[str, Any]:
    tool = planned.tool
    return {
        "step": planned.step,
        "position": planned.position,
        "tool_call_id": planned.call.id,
        "tool_name": planned.call.name,
        "server_id": str(tool.server_id) if tool and tool.server_id else None,
        "original_name": tool.original_name if tool else "",
        "definition_hash": tool.definition_hash if tool else "",
        "safe": tool.safe if tool else True,
        "arguments": planned.call.arguments,
    }
