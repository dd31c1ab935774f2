"""A chat's plans: kept for the turn that proposes them, read and approved by its user."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import text

from chatd.core.chats import Actor, NewTurn, Once
from chatd.core.errors import Conflict, LeaseLost, NotFound
from chatd.core.messages import Part
from chatd.core.plans import MEDIA_TYPE, Plan, approval
from chatd.core.work import Claim
from chatd.store.chats import require_chat
from chatd.store.db import Database, fetch_within
from chatd.store.family import Changed, lock_chat, run
from chatd.store.idempotency import Accepted, written_or_known
from chatd.store.submitting import accepted, refuse, submission, submit_within

KEEP_PLAN = f"""
WITH fence AS (
    SELECT t.chat_id, t.owner_id FROM turns t WHERE t.id = $2 AND t.lease_id = $3
), file AS (
    INSERT INTO files (id, owner_id, kind, name, media_type, size, sha256, data)
    SELECT $1, fence.owner_id, 'plan', coalesce($4, 'plan-' || (
            SELECT count(*) + 1 FROM chat_files l JOIN files f ON f.id = l.file_id
            WHERE l.chat_id = fence.chat_id AND f.kind = 'plan') || '.md'),
        '{MEDIA_TYPE}', $5, $6, $7 FROM fence
    ON CONFLICT (id) DO UPDATE SET size = excluded.size  -- it is there, and says its name
    RETURNING id, name
), link AS (
    INSERT INTO chat_files (chat_id, file_id) SELECT fence.chat_id, file.id FROM fence, file
    ON CONFLICT DO NOTHING
)
SELECT name FROM file
"""

PROPOSED = """EXISTS (
    SELECT 1 FROM chat_messages m JOIN turns t ON t.id = m.turn_id
        CROSS JOIN LATERAL json_array_elements(m.content) AS part
    WHERE m.chat_id = l.chat_id AND m.role = 'tool' AND NOT m.deleted
        AND t.plan_mode = 'plan' AND t.status <> 'superseded'
        AND part ->> 'tool_name' = 'propose_plan'
        AND strpos(part ->> 'result', '"file_id":"' || f.id || '"') > 0)"""
"""The plan `f` of the chat `l` is one that a message of the history tells of: none that was edited
away, and none before its turn has told it."""

NEWEST_PLAN = f"""
SELECT f.id AS file_id, f.name, f.data, f.created_at,
    (SELECT t.queued_at FROM turns t LEFT JOIN chat_messages m ON m.id = t.user_message_id
        WHERE t.id = f.approved_turn_id AND t.status NOT IN ('cancelled', 'superseded')
            AND m.deleted IS NOT TRUE) AS approved_at
FROM chat_files l JOIN files f ON f.id = l.file_id
WHERE l.chat_id = $1 AND f.kind = 'plan' AND {PROPOSED}
ORDER BY f.created_at DESC, f.id DESC LIMIT 1
"""
"""An approval that its user has taken back, by editing or from the queue, is none."""

IS_PLAN = text(
    f"""SELECT {PROPOSED} AS proposed FROM chat_files l JOIN files f ON f.id = l.file_id
    WHERE l.chat_id = :chat AND f.id = :file AND f.kind = 'plan'"""
)

APPROVED = text("UPDATE files SET approved_turn_id = :turn WHERE id = :file")


@dataclass(frozen=True, slots=True)
class Approving:
    """`file_id`: the plan that was read; None for the newest. `content`: what else is said."""

    actor: Actor
    chat_id: UUID
    file_id: UUID | None
    content: Sequence[Part]
    once: Once | None
    turn_id: UUID
    traceparent: str | None


async def keep_plan(
    db: Database, claim: Claim, file_id: UUID, *, name: str | None, content: str
) -> str:
    """Keep a plan with its chat, once per id; answers the file's name. Raises `LeaseLost`."""
    data = content.encode()
    place = (file_id, claim.turn_id, claim.lease_id)
    row = await db.fetch_one(KEEP_PLAN, *place, name, len(data), sha256(data).digest(), data)
    if row is None:
        raise LeaseLost
    return row["name"]


async def newest_plan(db: Database, actor: Actor, chat_id: UUID) -> Plan:
    """Raises `NotFound`, also for somebody else's chat."""
    await require_chat(db, actor.user_id, chat_id)
    row = await db.fetch_one(NEWEST_PLAN, chat_id)
    if row is None:
        raise NotFound("This chat has no plan.")
    return _to_plan(row)


async def approve_plan(db: Database, asked: Approving) -> Accepted:
    """A turn without plan mode whose message is the newest plan; the chat's own mode goes off too.

    Raises `NotFound`, `Conflict` (archived; no plan; not the newest; approved before), `TooMany`;
    nothing is written then.
    """
    row = await written_or_known(db, asked.actor, asked.once, partial(_approve, db, asked))
    if isinstance(row, Accepted):
        return row
    return accepted(row, asked.actor)


async def _approve(db: Database, asked: Approving) -> Any:
    async with db.statements() as connection:
        chat = await lock_chat(connection, asked.actor, asked.chat_id)
        if asked.file_id is not None:
            place = {"chat": asked.chat_id, "file": asked.file_id}
            known = await run(connection, IS_PLAN, **place)
            if not known:
                raise NotFound("This chat has no such plan.")
            if not known[0].proposed:
                raise Conflict("This plan is no part of the chat any more.")
        if chat.archived:
            raise Conflict("Chat is archived.", detail="Unarchive the chat to approve its plan.")
        found = await fetch_within(connection, NEWEST_PLAN, asked.chat_id)
        plan = _approvable(found, asked.file_id)
        new = NewTurn(approval(plan, asked.content), plan_mode="")
        args = submission(
            asked.actor,
            asked.chat_id,
            new,
            asked.once,
            turn_id=asked.turn_id,
            traceparent=asked.traceparent,
        )
        row = await submit_within(connection, args)
        if row["id"] is None:
            refuse(row, new)
        await connection.execute(APPROVED, {"turn": row["id"], "file": plan.file_id})
    return {**row, "changed": Changed()}


def _approvable(found: Sequence[Any], wanted: UUID | None) -> Plan:
    if not found:
        raise Conflict("There is no plan to approve.")
    plan = _to_plan(found[0])
    if wanted not in (None, plan.file_id):
        raise Conflict("There is a newer plan.", detail=f"The newest is {plan.file_id}.")
    if plan.approved_at is not None:
        raise Conflict(
            "This plan was approved before.", detail="Regenerate its turn to run it again."
        )
    return plan


def _to_plan(row: Any) -> Plan:
    return Plan(
        file_id=row["file_id"],
        name=row["name"],
        content=bytes(row["data"]).decode(),
        created_at=row["created_at"],
        approved_at=row["approved_at"],
    )
