"""Erasing a user: everything that they said, made or set goes, and so does who they were.

What stays are lines of ids and numbers. The journal of tool calls keeps what was called when,
without arguments, their hash and results. Usage entries stay as they are: they hold
no text, their ids lead nowhere any more, and without them the deployment's totals would change.
Audit lines of them and of what was theirs stay, without any name or text.
"""

from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

from sqlalchemy import text

from chatd import logs
from chatd.core.chats import Actor
from chatd.core.errors import NotFound, Unavailable
from chatd.store.audit import unseal
from chatd.store.db import Database
from chatd.store.editing import delete_chat
from chatd.store.family import Changed

log = logs.get(__name__)

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
    """UPDATE tool_calls SET arguments = NULL, result = NULL, arguments_sha256 = NULL
    WHERE user_id = :user AND num_nonnulls(arguments, result, arguments_sha256) > 0"""
)
"""Without the hash, too: who guesses short arguments would find them by it."""

_KEPT = """(SELECT jsonb_object_agg(field.key, field.value) FROM jsonb_each({fields}) AS field
            WHERE field.key = ANY (CAST(:kept AS text[])))"""

CLEAN_AUDIT = text(
    f"""UPDATE audit_log SET before = {_KEPT.format(fields="before")},
        after = {_KEPT.format(fields="after")}
    WHERE (target_type = 'user' AND target_id = :id)
        OR (target_type = 'api_token' AND coalesce(after, before)->>'user_id' = :id)
        OR (target_type = 'turn' AND coalesce(after, before)->>'owner_id' = :id)
        OR (actor_id = :user AND NOT target_type = ANY (CAST(:others AS text[])))"""
)

KEPT = [
    "user_id",
    "owner_id",
    "role",
    "suspended",
    "spend_limit_micros",
    "expires_at",
    "turn_id",
    "status",
    "state",
    "decision",
]
"""What of their audit lines says what happened, and nothing that they or others wrote."""

OTHERS = [
    "group",
    "mcp_server",
    "model_provider",
    "model_config",
    "deployment_setting",
    "encryption_key",
    "audit_log",
    "user",
    "api_token",
    "turn",
]
"""What an administrator did for everybody or to somebody: that is not their own."""

REMOVE_USER = text("DELETE FROM users WHERE id = :user RETURNING id")


async def delete_chats(db: Database, owner_id: UUID) -> AsyncGenerator[Changed]:
    """Cancel every turn of theirs and hide every chat; what each transaction changed.

    A family that cannot be deleted keeps no other from it, and is raised at the end.
    """
    failure: Exception | None = None
    for row in await db.fetch(FIND_ROOTS, owner_id):
        try:
            changed = await delete_chat(db, Actor(owner_id, "member"), row["id"])
        except NotFound:
            continue  # deleted meanwhile
        except Unavailable:
            raise
        except Exception as error:
            log.exception("a chat was not deleted", chat=str(row["id"]), error=type(error).__name__)
            failure = error
            continue
        yield changed
    if failure is not None:
        raise failure


async def erase_user(db: Database, user_id: UUID) -> None:
    """Of a suspended user whose chats are deleted. Raises `NotFound`."""
    for statement in (REMOVE_CHATS, REMOVE_FILES):
        while await db.fetch(statement, user_id):
            continue
    unhurried = db.unhurried()
    try:
        async with unhurried.statements() as connection:
            await connection.execute(CLEAN_JOURNAL, {"user": user_id})
            await unseal(connection)
            cleaned: dict[str, Any] = {"user": user_id, "id": str(user_id), "kept": KEPT}
            await connection.execute(CLEAN_AUDIT, cleaned | {"others": OTHERS})
            if not (await connection.execute(REMOVE_USER, {"user": user_id})).all():
                raise NotFound("User not found.")
    finally:
        await unhurried.close()
