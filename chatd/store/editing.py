"""Changing, archiving and deleting a chat, and what its user has read."""

from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from chatd.core.chats import MAX_TITLE, Actor, ChatPatch
from chatd.core.errors import BadRequest
from chatd.store import hot, watching
from chatd.store.chats import require_chat
from chatd.store.db import Database, dump
from chatd.store.family import Changed, lock_below, lock_chat, lock_in_family, run
from chatd.store.pinning import lock_pins, pin
from chatd.store.stopping import end_turns, promote_head, stop_active
from chatd.store.submitting import refuse_fixed_servers, refuse_servers
from chatd.store.versions import bump

UNKNOWN_SERVERS = text(
    f"""SELECT asked FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS list(asked, place)
    WHERE NOT EXISTS (SELECT 1 FROM mcp_server_configs s WHERE s.id = asked AND s.enabled
            AND {hot.MAY_USE.format(user="(SELECT owner_id FROM chats WHERE id = :chat)")})
        AND NOT asked = ANY ((SELECT mcp_server_ids FROM chats WHERE id = :chat)::uuid[])
    ORDER BY place"""
)

SET_FIELDS = text(
    """UPDATE chats SET
        title = coalesce(:title, title),
        title_source = CASE WHEN CAST(:title AS text) IS NULL THEN title_source ELSE 'user' END,
        retitling_until = CASE WHEN CAST(:title AS text) IS NULL THEN retitling_until END,
        labels = coalesce(CAST(:labels AS jsonb), labels),
        archived = coalesce(CAST(:archived AS boolean), archived),
        archived_at = CASE WHEN CAST(:archived AS boolean) IS NULL THEN archived_at
            WHEN :archived THEN clock_timestamp() END,
        pin_order = CASE WHEN CAST(:archived AS boolean) THEN 0 ELSE pin_order END,
        last_model_config_id = coalesce(CAST(:model AS uuid), last_model_config_id),
        last_reasoning_effort = coalesce(:effort, last_reasoning_effort),
        plan_mode = CASE WHEN CAST(:plan_mode AS text) IS NULL THEN plan_mode
            ELSE nullif(:plan_mode, '') END,
        mcp_server_ids = coalesce(CAST(:servers AS uuid[]), mcp_server_ids)
    WHERE id = :chat"""
)

SET_ARCHIVED = text(
    """UPDATE chats SET archived = :archived,
        archived_at = CASE WHEN :archived THEN clock_timestamp() END
    WHERE id = :chat"""
)

PARENT_ARCHIVED = text("SELECT archived FROM chats WHERE id = :parent")

USABLE = text(f"{hot.USABLE_MODEL} AND m.id = :model")

HIDE = text("UPDATE chats SET deleted_at = clock_timestamp() WHERE id = :chat")


async def patch_chat(db: Database, actor: Actor, chat_id: UUID, patch: ChatPatch) -> Changed:
    """Raises `NotFound`, `BadRequest`; nothing is written then.

    Archiving stops the active turn (its worker commits what it has) and leaves the queue waiting;
    unarchiving promotes the queue's head. Both take the chats below along.
    """
    changed = Changed()
    title = _checked_title(patch.title)
    async with db.statements() as connection:
        chat = await _lock(connection, actor, chat_id, patch)
        _check_archived(chat.archived, patch.archived)
        await _check_parent(connection, chat, patch)
        _check_pin(chat, patch)
        _check_explore(chat, patch)
        servers = await _checked_servers(connection, chat_id, patch.mcp_server_ids)
        await _check_model(connection, patch.model_config_id)
        version = changed.versions[chat_id] = await bump(connection, chat_id)
        await connection.execute(
            SET_FIELDS,
            {
                "chat": chat_id,
                "title": title,
                "labels": dump(patch.labels) if patch.labels is not None else None,
                "archived": patch.archived,
                "model": patch.model_config_id,
                "effort": patch.reasoning_effort,
                "plan_mode": patch.plan_mode,
                "servers": servers,
            },
        )
        if patch.archived is not None:
            await _archive(connection, chat_id, version, changed, archived=patch.archived)
        await _pin(connection, actor, chat, patch, changed)
    return changed


async def _lock(connection: AsyncConnection, actor: Actor, chat_id: UUID, patch: ChatPatch) -> Any:
    if patch.archived is not None or patch.pin_order is not None:
        await lock_pins(connection, actor)
    if patch.archived is not None:
        return await lock_in_family(connection, actor, chat_id)
    return await lock_chat(connection, actor, chat_id)


async def _archive(
    connection: AsyncConnection, chat_id: UUID, version: int, changed: Changed, *, archived: bool
) -> None:
    """Stop the chat or let its queue go on, and do the same with those below it."""
    await _stop_or_go_on(connection, chat_id, version, changed, archived)
    for child in await lock_below(connection, chat_id):
        if child.archived != archived:
            changed.versions[child.id] = await bump(connection, child.id)
            await connection.execute(SET_ARCHIVED, {"chat": child.id, "archived": archived})
            await _stop_or_go_on(connection, child.id, child.version + 1, changed, archived)


async def _stop_or_go_on(
    connection: AsyncConnection, chat_id: UUID, version: int, changed: Changed, archived: bool
) -> None:
    if archived:
        await stop_active(connection, chat_id, version, changed)
    else:
        await promote_head(connection, chat_id, version)


async def _pin(
    connection: AsyncConnection, actor: Actor, chat: Any, patch: ChatPatch, changed: Changed
) -> None:
    """Where the chat is asked to be; an archived one is not pinned.

    What was not pinned and will not be leaves the others alone: a child must not lock its root.
    """
    wanted = 0 if patch.archived else patch.pin_order
    if wanted or (wanted == 0 and chat.pin_order):
        await pin(connection, actor, chat, wanted, changed)


async def delete_chat(db: Database, actor: Actor, chat_id: UUID) -> Changed:
    """Cancel the turns of the chat and of those below, and hide them; a job removes the rows."""
    changed = Changed()
    async with db.statements() as connection:
        await lock_pins(connection, actor)
        chat = await lock_in_family(connection, actor, chat_id)
        for gone in (chat, *await lock_below(connection, chat_id)):
            version = changed.versions[gone.id] = await bump(connection, gone.id)
            await end_turns(connection, gone.id, version, changed, ending="cancelled")
            await connection.execute(HIDE, {"chat": gone.id})
        if chat.pin_order:
            await pin(connection, actor, chat, 0, changed)
    return changed


async def mark_read(db: Database, actor: Actor, chat_id: UUID, message_id: int | None) -> bool:
    """Read up to this message or to the newest, never back; whether that moved anything."""
    await require_chat(db, actor.user_id, chat_id)
    return await watching.mark_read(db, chat_id, message_id)


def _checked_title(title: str | None) -> str | None:
    if title is None:
        return None
    title = title.strip()
    if not title:
        raise BadRequest("Title cannot be empty.")
    if len(title) > MAX_TITLE:
        raise BadRequest(f"Title must be at most {MAX_TITLE} characters.")
    return title


def _check_archived(now: bool, wanted: bool | None) -> None:
    if wanted is not None and wanted == now:
        raise BadRequest("Chat is already archived." if now else "Chat is not archived.")


async def _check_parent(connection: AsyncConnection, chat: Any, patch: ChatPatch) -> None:
    if patch.archived is False and chat.parent_chat_id is not None:
        parent = await run(connection, PARENT_ARCHIVED, parent=chat.parent_chat_id)
        if parent[0].archived:
            raise BadRequest("The parent chat is archived.", detail="Unarchive that one first.")


async def _check_model(connection: AsyncConnection, model_id: UUID | None) -> None:
    if model_id is not None and not await run(connection, USABLE, model=model_id):
        raise BadRequest("Invalid model config ID.")


def _check_pin(chat: Any, patch: ChatPatch) -> None:
    if patch.pin_order is None:
        return
    if patch.pin_order < 0:
        raise BadRequest("pin_order must not be negative.")
    archived = chat.archived if patch.archived is None else patch.archived
    if patch.pin_order and archived:
        raise BadRequest("An archived chat cannot be pinned.")
    if patch.pin_order and chat.parent_chat_id is not None:
        raise BadRequest("Only root chats can be pinned.")


def _check_explore(chat: Any, patch: ChatPatch) -> None:
    if chat.mode == "explore" and patch.mcp_server_ids is not None:
        refuse_fixed_servers()


async def _checked_servers(
    connection: AsyncConnection, chat_id: UUID, asked: tuple[UUID, ...] | None
) -> list[UUID] | None:
    if asked is None:
        return None
    ids = list(dict.fromkeys(asked))
    unknown = await run(connection, UNKNOWN_SERVERS, ids=ids, chat=chat_id)
    if unknown:
        refuse_servers([row.asked for row in unknown])
    return ids
