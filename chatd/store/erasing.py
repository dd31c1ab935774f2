"""Erasing a user: everything that they said, made or set goes, and so does who they were.

What stays are lines of ids and numbers. The journal of tool calls keeps what was called when,
without arguments and results, as after any deleted chat. Usage entries stay as they are: they hold
no text, their ids lead nowhere any more, and without them the deployment's totals would change.
Audit lines of them and of what was theirs stay, without any name or text.
"""

from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

from sqlalchemy import text

from chatd.core.chats import Actor
from chatd.core.errors import NotFound
from chatd.store.audit import unseal
from chatd.store.db import Database
from chatd.store.editing import delete_chat
from chatd.store.family import Changed

BATCH = 25
"""Chats at once, as `purging` does: also long ones are gone in a statement's time."""

FILES_BATCH = 50

FIND_ROOTS = """
SELECT id FROM chats WHERE owner_id = $1 AND parent_chat_id IS NULL AND deleted_at IS NULL
ORDER BY id
"""

REMOVE_CHATS = f"""
DELETE FROM chats WHERE id IN (
    SELECT id FROM chats WHERE owner_id = $1 AND parent_chat_id IS NULL ORDER BY id LIMIT {BATCH})
RETURNING id
"""

REMOVE_FILES = f"""
DELETE FROM files WHERE id IN (SELECT id FROM files WHERE owner_id = $1 LIMIT {FILES_BATCH})
RETURNING id
"""

CLEAN_JOURNAL = text(
    """UPDATE tool_calls SET arguments = NULL, result = NULL
    WHERE user_id = :user AND (arguments IS NOT NULL OR result IS NOT NULL)"""
)

_KEPT = """(SELECT jsonb_object_agg(field.key, field.value) FROM jsonb_each({fields}) AS field
            WHERE field.key = ANY (CAST(:kept AS text[])))"""

CLEAN_AUDIT = text(
    f"""UPDATE audit_log SET before = {_KEPT.format(fields="before")},
        after = {_KEPT.format(fields="after")}
    WHERE (target_type = 'user' AND target_id = :id)
        OR (target_type = 'api_token' AND coalesce(after, before)->>'user_id' = :id)
        OR (actor_id = :user AND NOT target_type = ANY (CAST(:deployment AS text[])))"""
)

KEPT = ["user_id", "role", "suspended", "spend_limit_micros", "expires_at", "turn_id", "decision"]
"""What of their audit lines says what happened, and nothing that they or others wrote."""

DEPLOYMENT = [
    "group",
    "mcp_server",
    "model_provider",
    "model_config",
    "deployment_setting",
    "encryption_key",
    "audit_log",
    "user",
    "api_token",
]
"""What an administrator changed for everybody: that is not their own."""

REMOVE_USER = text("DELETE FROM users WHERE id = :user RETURNING id")


async def delete_chats(db: Database, owner_id: UUID) -> AsyncGenerator[Changed]:
    """Cancel every turn of theirs and hide every chat; what each transaction changed."""
    for row in await db.fetch(FIND_ROOTS, owner_id):
        try:
            yield await delete_chat(db, Actor(owner_id, "member"), row["id"])
        except NotFound:
            continue  # deleted meanwhile


async def erase_user(db: Database, user_id: UUID) -> None:
    """Of a suspended user whose chats are deleted. Raises `NotFound`.

    Foreign keys to users have few indexes, so this last step takes as long as it takes.
    """
    for statement in (REMOVE_CHATS, REMOVE_FILES):
        while await db.fetch(statement, user_id):
            continue
    unhurried = db.unhurried()
    try:
        async with unhurried.statements() as connection:
            await connection.execute(CLEAN_JOURNAL, {"user": user_id})
            await unseal(connection)
            cleaned: dict[str, Any] = {"user": user_id, "id": str(user_id), "kept": KEPT}
            await connection.execute(CLEAN_AUDIT, cleaned | {"deployment": DEPLOYMENT})
            if not (await connection.execute(REMOVE_USER, {"user": user_id})).all():
                raise NotFound("User not found.")
    finally:
        await unhurried.close()
