"""Rows put into the database directly: what would take hours to chat."""

from collections.abc import Sequence
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[Any]"

RUNNING = "SELECT count(*) FROM turns WHERE status = 'running'"
WORKER = "SELECT worker_id FROM turns WHERE status = 'running'"

LINE = "A message of a seeded chat, about as long as a line of text."

_CHATS = """
INSERT INTO chats (id, owner_id, title, system_prompt, client_type, archived, pin_order)
SELECT gen_random_uuid(), u.id, 'seeded', '', 'api', false, 0
FROM users u, generate_series(1, $1::int) WHERE u.username = 'bench'
RETURNING id
"""
_TURNS = """
INSERT INTO turns (id, chat_id, owner_id, status, content, finished_at)
SELECT gen_random_uuid(), c.id, c.owner_id, 'completed', '[]', clock_timestamp()
FROM chats c WHERE c.id = ANY ($1::uuid[])
"""
_MESSAGES = """
INSERT INTO chat_messages (chat_id, turn_id, step, position, role, content)
SELECT t.chat_id, t.id, 0, n, CASE n % 2 WHEN 1 THEN 'user' ELSE 'assistant' END,
    json_build_array(json_build_object('type', 'text', 'text',
        $3::text))
FROM turns t, generate_series(1, $2::int) n WHERE t.chat_id = ANY ($1::uuid[]) ORDER BY n
"""


async def add_chats(db: Connection, count: int) -> list[UUID]:
    """Empty chats of the benchmark's user."""
    return [row["id"] for row in await db.fetch(_CHATS, count, timeout=120)]


async def add_messages(db: Connection, chat: UUID, count: int) -> None:
    """One finished turn with so many messages, by user and assistant in turns."""
    await _fill(db, [chat], count)


async def add_small_talk(db: Connection, chats: Sequence[UUID]) -> None:
    """A finished turn of two messages for each chat."""
    await _fill(db, chats, 2)


async def _fill(db: Connection, chats: Sequence[UUID], count: int) -> None:
    await db.execute(_TURNS, chats, timeout=120)
    await db.execute(_MESSAGES, chats, count, LINE, timeout=240)
    await db.execute("ANALYZE chats, turns, chat_messages")
