"""What a turn does to its sub-agents: starts them, speaks to them, stops them.

Each locks the family's root first, which is the turn's own chat, and is fenced by its lease.
"""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from chatd.core.agents import MAX_ACTIVE, MAX_SPAWNED, Agent, NewAgent, gone
from chatd.core.chats import Actor, NewTurn, fallback_title
from chatd.core.errors import Conflict, LeaseLost, NotFound, TooMany
from chatd.core.messages import TextPart
from chatd.core.work import Claim
from chatd.store import hot
from chatd.store.agents import look_within
from chatd.store.db import Database, dump
from chatd.store.family import Changed, lock_chat, run
from chatd.store.stopping import promote_head, stop_active
from chatd.store.submitting import refuse, submission, submit_within
from chatd.store.versions import bump
from chatd.store.work import patiently

LOCK_ROOT = text("SELECT parent_chat_id FROM chats WHERE id = :chat FOR NO KEY UPDATE")

FENCE = text(
    "SELECT status FROM turns WHERE id = :turn AND lease_id = :lease AND chat_id = :chat FOR UPDATE"
)

COUNT = text(
    f"""SELECT count(*) FILTER (WHERE c.created_at >= t.started_at) AS spawned,
        count(*) FILTER (WHERE c.deleted_at IS NULL AND EXISTS (SELECT 1 FROM turns a
            WHERE a.chat_id = c.id AND a.status IN {hot.ACTIVE})) AS active
    FROM turns t JOIN chats c ON c.root_chat_id = t.chat_id WHERE t.id = :turn"""
)

SPAWN = text(
    f"""WITH parent AS (
        SELECT c.owner_id, c.system_prompt, c.client_type, t.plan_mode, t.mcp_server_ids,
            coalesce(other.id, t.model_config_id) AS model,
            CASE WHEN other.id IS NULL OR other.id = t.model_config_id
                THEN t.reasoning_effort END AS effort
        FROM turns t JOIN chats c ON c.id = t.chat_id
            LEFT JOIN ({hot.USABLE_MODEL}) AS other ON other.id = CAST(:model AS uuid)
        WHERE t.id = :spawner
    ), chat AS (
        INSERT INTO chats (id, owner_id, parent_chat_id, root_chat_id, title, title_source, mode,
            system_prompt, plan_mode, client_type, last_model_config_id, last_reasoning_effort,
            mcp_server_ids, archived, pin_order, version)
        SELECT :chat, owner_id, :root, :root, :title, :title_source, :mode, system_prompt,
            plan_mode, client_type, model, effort, mcp_server_ids, false, 0, 1
        FROM parent RETURNING *
    ), turn AS (
        INSERT INTO turns (id, chat_id, owner_id, status, content, plan_mode, model_config_id,
            reasoning_effort, mcp_server_ids, user_message_id, traceparent, version, pending_at)
        SELECT :turn, id, owner_id, 'pending', CAST(:content AS json), plan_mode,
            last_model_config_id, last_reasoning_effort, mcp_server_ids,
            nextval('chat_messages_id_seq'), :traceparent, 1, clock_timestamp()
        FROM chat RETURNING *
    )
    INSERT INTO chat_messages (id, chat_id, turn_id, step, position, created_by, model_config_id,
        role, content, version)
    SELECT user_message_id, chat_id, id, 0, 0, owner_id, model_config_id, 'user', content, 1
    FROM turn"""
)

KNOWN_TURN = text("SELECT id FROM turns WHERE id = :turn AND chat_id = :chat")


@dataclass(frozen=True, slots=True)
class Commanded:
    """The agent after it, and whom to tell."""

    agent: Agent
    changed: Changed = field(default_factory=Changed)


async def spawn(db: Database, claim: Claim, new: NewAgent) -> Commanded:
    """A chat below the turn's own; the same one when it was started before a crash.

    Raises `LeaseLost`; `Conflict` in a stopped turn or a sub-agent's; `TooMany`.
    """

    async def write() -> Any:
        async with db.statements() as connection:
            await _fenced(connection, claim)
            if await look_within(connection, claim.chat_id, new.chat_id) is None:
                await _check_room(connection, claim)
                await _insert(connection, claim, new)
            agent = await _seen(connection, claim, new.chat_id)
        return Commanded(agent, Changed({new.chat_id: 1}))

    return await patiently(write)


async def speak(
    db: Database, claim: Claim, chat_id: UUID, words: str, *, turn_id: UUID, interrupt: bool
) -> Commanded:
    """A user message for it, once per `turn_id`; with `interrupt`, what it does is stopped first.

    Raises `LeaseLost`, `NotFound` unless it is the turn's own sub-agent, `Conflict` (archived),
    `TooMany` (its queue is full); nothing is written then.
    """
    actor = Actor(claim.owner_id, "member")
    new = NewTurn([TextPart(type="text", text=words)])
    args = submission(actor, chat_id, new, None, turn_id=turn_id, traceparent=claim.traceparent)

    async def write() -> Any:
        changed = Changed()
        async with db.statements() as connection:
            await _fenced(connection, claim)
            await _lock_agent(connection, claim, actor, chat_id)
            if not await run(connection, KNOWN_TURN, turn=turn_id, chat=chat_id):
                row = await submit_within(connection, args)
                if row["id"] is None:
                    refuse(row, new)
                version = changed.versions[chat_id] = row["version"]
                if interrupt and row["busy"]:
                    await stop_active(connection, chat_id, version, changed)
                    await promote_head(connection, chat_id, version)
            agent = await _seen(connection, claim, chat_id)
        return Commanded(agent, changed)

    return await patiently(write)


async def stop(db: Database, claim: Claim, chat_id: UUID) -> Commanded:
    """Interrupt its active turn, if there is one; its queue goes on.

    Raises `LeaseLost`, and `NotFound` unless it is the turn's own sub-agent.
    """

    async def write() -> Any:
        changed = Changed()
        async with db.statements() as connection:
            await _fenced(connection, claim)
            actor = Actor(claim.owner_id, "member")
            chat = await _lock_agent(connection, claim, actor, chat_id)
            version = chat.version + 1
            if await stop_active(connection, chat_id, version, changed):
                changed.versions[chat_id] = await bump(connection, chat_id)
                if not chat.archived:
                    await promote_head(connection, chat_id, version)
            agent = await _seen(connection, claim, chat_id)
        return Commanded(agent, changed)

    return await patiently(write)


async def _fenced(connection: AsyncConnection, claim: Claim) -> None:
    root = await run(connection, LOCK_ROOT, chat=claim.chat_id)
    turn = await run(
        connection, FENCE, turn=claim.turn_id, lease=claim.lease_id, chat=claim.chat_id
    )
    if not turn:
        raise LeaseLost
    if turn[0].status != "running":
        raise Conflict("This turn was stopped.")
    if root[0].parent_chat_id is not None:
        raise Conflict("Sub-agents cannot have sub-agents.")


async def _check_room(connection: AsyncConnection, claim: Claim) -> None:
    ((spawned, active),) = await run(connection, COUNT, turn=claim.turn_id)
    if active >= MAX_ACTIVE:
        raise TooMany(
            f"{active} sub-agents are at work, and no more may be.",
            detail="Wait for one of them, or interrupt one.",
        )
    if spawned >= MAX_SPAWNED:
        raise TooMany(f"This turn has started {spawned} sub-agents, and may start no more.")


async def _insert(connection: AsyncConnection, claim: Claim, new: NewAgent) -> None:
    content = [TextPart(type="text", text=new.prompt)]
    await connection.execute(
        SPAWN,
        {
            "spawner": claim.turn_id,
            "root": claim.chat_id,
            "chat": new.chat_id,
            "turn": new.turn_id,
            "title": new.title or fallback_title(list(content)),
            "title_source": "generated" if new.title else "fallback",
            "mode": "explore" if new.type == "explore" else None,
            "model": new.model_config_id,
            "content": dump(content),
            "traceparent": claim.traceparent,
        },
    )


async def _lock_agent(
    connection: AsyncConnection, claim: Claim, actor: Actor, chat_id: UUID
) -> Any:
    chat = await lock_chat(connection, actor, chat_id)
    if chat.parent_chat_id != claim.chat_id:
        raise NotFound
    return chat


async def _seen(connection: AsyncConnection, claim: Claim, chat_id: UUID) -> Agent:
    return await look_within(connection, claim.chat_id, chat_id) or gone(chat_id)
