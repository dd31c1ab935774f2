"""Removing what is over: rows of deleted chats, idempotency keys past their day."""

from chatd.store.db import Database

BATCH = 200

PURGE_CHATS = f"""
WITH gone AS (
    SELECT id FROM chats WHERE deleted_at IS NOT NULL ORDER BY deleted_at LIMIT {BATCH}
    FOR UPDATE SKIP LOCKED
), journal AS (
    UPDATE tool_calls j SET arguments = NULL, result = NULL FROM gone WHERE j.chat_id = gone.id
)
DELETE FROM chats USING gone WHERE chats.id = gone.id RETURNING chats.id
"""

FORGET_KEYS = f"""
UPDATE turns SET idempotency_key = NULL WHERE id IN (
    SELECT id FROM turns WHERE idempotency_key IS NOT NULL
        AND queued_at < clock_timestamp() - interval '24 hours' LIMIT {BATCH})
RETURNING id
"""


async def purge_chats(db: Database) -> int:
    """Delete a batch of deleted chats; the journal's lines stay, without what was said."""
    return len(await db.fetch(PURGE_CHATS))


async def forget_keys(db: Database) -> int:
    """Free a batch of idempotency keys older than 24 hours."""
    return len(await db.fetch(FORGET_KEYS))
