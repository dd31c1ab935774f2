"""Sub-agents as their parent sees them. A chat's sub-agents are those whose root it is."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from chatd.core.agents import USER_SPOKE, Agent, gone
from chatd.core.items import NewItem
from chatd.core.tools import JsonObject
from chatd.store import hot
from chatd.store.db import Database, load
from chatd.store.family import run

MAX_LISTED = 25

_LAST_ENDED = """
    SELECT e.status, e.error FROM turns e
    WHERE e.chat_id = c.id AND e.finished_at IS NOT NULL AND e.user_message_id IS NOT NULL
    ORDER BY e.position DESC LIMIT 1
"""

_QUEUED = "EXISTS (SELECT 1 FROM turns q WHERE q.chat_id = c.id AND q.status = 'queued')"

SETTLED = f"""
    (c.id IS NULL OR c.deleted_at IS NOT NULL
        OR EXISTS (SELECT 1 FROM turns a
            WHERE a.chat_id = c.id AND a.status = 'requires_action')
        OR NOT EXISTS (SELECT 1 FROM turns a
                WHERE a.chat_id = c.id AND a.status IN ('pending', 'running', 'interrupting'))
            AND (c.archived OR NOT {_QUEUED}
                OR coalesce((SELECT last.status FROM ({_LAST_ENDED}) AS last), '') = 'failed'))
"""
"""Of a chat `c`: it does nothing more by itself. A failed or archived one keeps its queue."""

AGENTS = f"""
SELECT c.id, c.title, c.mode, c.deleted_at IS NOT NULL AS deleted, c.archived, {SETTLED} AS settled,
    {_QUEUED} AS queued, active.status AS active_status, ended.status AS last_status,
    ended.error, said.words
FROM chats c
    LEFT JOIN turns active ON active.chat_id = c.id AND active.status IN {hot.ACTIVE}
    LEFT JOIN LATERAL ({_LAST_ENDED}) AS ended ON true
    LEFT JOIN LATERAL (
        SELECT (SELECT string_agg(p.part->>'text', '' ORDER BY p.place)
            FROM json_array_elements(m.content) WITH ORDINALITY AS p(part, place)
            WHERE p.part->>'type' = 'text') AS words
        FROM chat_messages m
        WHERE m.chat_id = c.id AND m.role = 'assistant' AND NOT m.deleted AND NOT m.compressed
            AND EXISTS (SELECT 1 FROM json_array_elements(m.content) AS p(part)
                WHERE p.part->>'type' = 'text')
        ORDER BY m.id DESC LIMIT 1) AS said ON true
"""

LIST_AGENTS = f"""
{AGENTS} WHERE c.root_chat_id = $1 AND c.deleted_at IS NULL
ORDER BY active.status IS NULL, c.created_at DESC LIMIT {MAX_LISTED}
"""

LOOK = f"{AGENTS} WHERE c.root_chat_id = $1 AND c.id = $2"

LOOK_WITHIN = text(f"{AGENTS} WHERE c.root_chat_id = :root AND c.id = :chat")

LOCK_AGENT = text("SELECT id FROM chats WHERE id = :chat FOR NO KEY UPDATE")

HAS_QUEUE = """
SELECT EXISTS (SELECT 1 FROM turns WHERE chat_id = $1 AND status = 'queued') AS found
"""

HAS_QUEUE_WITHIN = text("SELECT 1 FROM turns WHERE chat_id = :chat AND status = 'queued' LIMIT 1")


async def list_agents(db: Database, root_id: UUID) -> list[Agent]:
    """Those at work, then the newest; at most `MAX_LISTED`."""
    return [_agent(row) for row in await db.fetch(LIST_AGENTS, root_id)]


async def look(db: Database, root_id: UUID, chat_id: UUID) -> Agent | None:
    """None for a chat that is not this root's."""
    row = await db.fetch_one(LOOK, root_id, chat_id)
    return _agent(row) if row is not None else None


async def look_within(connection: AsyncConnection, root_id: UUID, chat_id: UUID) -> Agent | None:
    """The same in a transaction that has locked the root."""
    rows = await run(connection, LOOK_WITHIN, root=root_id, chat=chat_id)
    return _agent(rows[0]._mapping) if rows else None


async def user_spoke(db: Database, chat_id: UUID) -> bool:
    """Whether something waits behind the chat's turn."""
    row = await db.fetch_one(HAS_QUEUE, chat_id)
    return row is not None and row["found"]


async def answer_now(
    connection: AsyncConnection, root_id: UUID, chat_id: UUID
) -> JsonObject | None:
    """What a wait for this agent is answered; None while there is a reason to wait.

    The root is to be locked before.
    """
    agent = await look_within(connection, root_id, chat_id) or gone(chat_id)
    if agent.settled:
        return agent.report()
    if await run(connection, HAS_QUEUE_WITHIN, chat=root_id):
        return agent.report(USER_SPOKE)
    return None


async def answered_already(
    connection: AsyncConnection, root_id: UUID, items: Sequence[NewItem]
) -> Mapping[UUID, JsonObject]:
    """What is known of those that these items wait for; locks them, the root being locked."""
    ids = sorted({item.child_chat_id for item in items if item.child_chat_id is not None})
    answers: dict[UUID, JsonObject] = {}
    for chat_id in ids:
        await connection.execute(LOCK_AGENT, {"chat": chat_id})
        answer = await answer_now(connection, root_id, chat_id)
        if answer is not None:
            answers[chat_id] = answer
    return answers


def _agent(row: Any) -> Agent:
    if row["deleted"]:
        return gone(row["id"])
    error = load(row["error"]) if row["active_status"] is None else None
    return Agent(
        chat_id=row["id"],
        type="explore" if row["mode"] == "explore" else "general",
        title=row["title"],
        status=_status(row),
        settled=row["settled"],
        text=row["words"] or "",
        error=error["message"] if error else "",
    )


def _status(row: Any) -> str:
    if row["active_status"] is not None:
        return row["active_status"]
    if row["archived"]:
        return "archived"
    if not row["settled"]:
        return "queued"
    return row["last_status"] or "idle"
