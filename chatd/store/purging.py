"""Removing what is over: rows of deleted and long archived chats, files nobody names, old keys."""

from datetime import UTC, datetime

from chatd.core.config import DeploymentConfig
from chatd.store.audit import unseal
from chatd.store.db import Database, fetch_within

BATCH = 25
"""Chats at once: also with ten thousand messages each they are gone in a statement's time."""

FILES_BATCH = 1000
KEYS_BATCH = 200
LINES_BATCH = 2000

GRACE_S = 60.0
"""How long a deleted chat keeps its rows: watchers who missed the news still find what it was."""

_REMOVE = """
), family AS (
    SELECT id FROM gone
    UNION SELECT c.id FROM gone JOIN chats c ON c.root_chat_id = gone.id
    UNION SELECT c.id FROM gone JOIN chats c ON c.parent_chat_id = gone.id
), journal AS (
    UPDATE tool_calls j SET arguments = NULL, result = NULL,
        arguments_sha256 = coalesce(encode(sha256(convert_to(j.arguments, 'UTF8')), 'hex'),
            j.arguments_sha256)
    WHERE j.chat_id = ANY (ARRAY(SELECT id FROM family))
)
DELETE FROM chats USING gone WHERE chats.id = gone.id RETURNING chats.id
"""
"""The chats below go with theirs. The journal outlives all chats: it is only read by index."""

PURGE_CHATS = f"""
WITH gone AS (
    SELECT id FROM chats WHERE deleted_at < clock_timestamp() - make_interval(secs => $1)
    ORDER BY deleted_at LIMIT {BATCH} FOR UPDATE SKIP LOCKED
{_REMOVE}
"""

PURGE_ARCHIVED = f"""
WITH gone AS (
    SELECT id FROM chats WHERE archived AND deleted_at IS NULL
        AND archived_at < clock_timestamp() - make_interval(days => $1)
    ORDER BY archived_at LIMIT {BATCH} FOR UPDATE SKIP LOCKED
{_REMOVE}
"""

PURGE_FILES = f"""
WITH unnamed AS (
    SELECT f.id FROM files f WHERE f.created_at < clock_timestamp() - interval '1 day'
        AND NOT EXISTS (SELECT 1 FROM chat_files l WHERE l.file_id = f.id)
    ORDER BY f.created_at LIMIT {FILES_BATCH} FOR UPDATE SKIP LOCKED
)
DELETE FROM files USING unnamed WHERE files.id = unnamed.id RETURNING files.id
"""

FORGET_KEYS = f"""
UPDATE turns SET idempotency_key = NULL WHERE id IN (
    SELECT id FROM turns WHERE idempotency_key IS NOT NULL
        AND queued_at < clock_timestamp() - interval '24 hours' LIMIT {KEYS_BATCH}
    FOR NO KEY UPDATE SKIP LOCKED)
RETURNING id
"""
"""Turns of many chats, none of which is locked: it must wait for no command, which may be waiting
for another of them."""

DEAD_DAYS = 30
"""How long a token that no longer works is shown."""

FORGET_TOKENS = f"""
DELETE FROM api_tokens WHERE id IN (
    SELECT id FROM api_tokens
    WHERE least(revoked_at, expires_at) < clock_timestamp() - interval '{DEAD_DAYS} days'
    LIMIT {KEYS_BATCH} FOR UPDATE SKIP LOCKED)
RETURNING id
"""

FORGET_ENTRIES = f"""
DELETE FROM audit_log WHERE id IN (
    SELECT id FROM audit_log WHERE at < clock_timestamp() - make_interval(days => $1)
    ORDER BY at LIMIT {LINES_BATCH} FOR UPDATE SKIP LOCKED)
RETURNING id
"""

FORGET_CONNECTIONS = f"""
DELETE FROM connection_log WHERE id IN (
    SELECT id FROM connection_log WHERE at < clock_timestamp() - make_interval(days => $1)
    ORDER BY at LIMIT {LINES_BATCH} FOR UPDATE SKIP LOCKED)
RETURNING id
"""

FORGET_CALLS = f"""
WITH old AS (
    SELECT id, intended_at, chat_id FROM tool_calls
    WHERE (intended_at, id) > ($2, $3::bigint)
        AND intended_at < clock_timestamp() - make_interval(days => $1)
    ORDER BY intended_at, id LIMIT {LINES_BATCH}
), gone AS (
    DELETE FROM tool_calls USING old WHERE tool_calls.id = old.id
        AND NOT EXISTS (SELECT 1 FROM chats c WHERE c.id = old.chat_id)
)
SELECT intended_at, id FROM old ORDER BY intended_at DESC, id DESC LIMIT 1
"""
"""The lines of chats that are there stay, so it walks on from the last line it has seen."""

_FIRST = (datetime(1970, 1, 1, tzinfo=UTC), 0)


async def purge_chats(db: Database, grace_s: float = GRACE_S) -> int:
    """Remove a batch of deleted chats; the journal's lines stay, without what was said."""
    return len(await db.fetch(PURGE_CHATS, grace_s))


async def purge_archived(db: Database, config: DeploymentConfig) -> int:
    """The same for a batch of chats that have been archived for too long."""
    if not config.retention_days:
        return 0
    return len(await db.fetch(PURGE_ARCHIVED, config.retention_days))


async def purge_files(db: Database) -> int:
    """Remove a batch of files that no chat names, a day after they came."""
    return len(await db.fetch(PURGE_FILES))


async def forget_keys(db: Database) -> int:
    """Free a batch of idempotency keys older than 24 hours."""
    return len(await db.fetch(FORGET_KEYS))


async def forget_tokens(db: Database) -> int:
    """Remove a batch of tokens that stopped working long ago."""
    return len(await db.fetch(FORGET_TOKENS))


async def forget_entries(db: Database, days: int) -> int:
    """Remove a batch of old lines of the audit log; 0 days: none."""
    if not days:
        return 0
    async with db.statements() as connection:
        await unseal(connection)
        return len(await fetch_within(connection, FORGET_ENTRIES, days))


async def forget_connections(db: Database, days: int) -> int:
    """The same for the connection log."""
    if not days:
        return 0
    async with db.statements() as connection:
        await unseal(connection)
        return len(await fetch_within(connection, FORGET_CONNECTIONS, days))


async def forget_calls(
    db: Database, days: int, after: tuple[datetime, int] = _FIRST
) -> tuple[datetime, int] | None:
    """The same for the journal's lines of chats that are gone.

    Answers the last line of the batch, to go on `after`; None at the end.
    """
    last = await db.fetch_one(FORGET_CALLS, days, *after) if days else None
    return (last["intended_at"], last["id"]) if last is not None else None
