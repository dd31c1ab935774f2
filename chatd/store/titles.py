"""Titles in the chat's row: who may replace which, and what they are made from."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from chatd.core.errors import Conflict, NotFound
from chatd.core.messages import Part
from chatd.core.models import Model
from chatd.store.db import Database, load
from chatd.store.loading import to_model
from chatd.store.secrets import KeyRing

MAX_MESSAGES = 50

CHEAP = (
    "claude-haiku-4-5",
    "gpt-4o-mini",
    "gemini-2.5-flash",
    "anthropic.claude-haiku-4-5-20251001-v1:0",
    "anthropic/claude-3.5-haiku",
    "anthropic/claude-haiku-4.5",
)
"""Models that are good enough for a title, as the providers call them."""

MODELS = """
SELECT m.id AS model_id, m.model, m.context_limit, m.compression_threshold, m.options,
    m.enabled AND m.deleted_at IS NULL AS model_enabled, p.id AS provider_id, p.provider,
    p.base_url, p.api_key, p.api_key_key_id,
    p.enabled AND p.deleted_at IS NULL AS provider_enabled
FROM model_configs m JOIN model_providers p ON p.id = m.provider_id
WHERE CASE WHEN $1::uuid IS NOT NULL THEN m.id = $1
    ELSE m.id = $2 OR m.model = ANY ($3::text[]) AND m.enabled AND m.deleted_at IS NULL
        AND p.enabled AND p.deleted_at IS NULL END
ORDER BY (m.id = $2) IS TRUE, (p.id = (SELECT provider_id FROM model_configs WHERE id = $2))
    IS NOT TRUE, m.created_at
"""

CHAT = """
SELECT c.owner_id, c.last_model_config_id,
    (SELECT json_agg(json_build_object('role', s.role, 'content', s.content) ORDER BY s.id)
        FROM (SELECT m.id, m.role, m.content FROM chat_messages m
            WHERE m.chat_id = c.id AND NOT m.deleted AND m.visibility <> 'model'
                AND m.role IN ('user', 'assistant')
                AND (m.id = (SELECT min(f.id) FROM chat_messages f WHERE f.chat_id = c.id
                        AND NOT f.deleted AND f.visibility <> 'model' AND f.role = 'user')
                    OR m.id > coalesce((SELECT n.id FROM chat_messages n WHERE n.chat_id = c.id
                        AND NOT n.deleted AND n.visibility <> 'model'
                        AND n.role IN ('user', 'assistant')
                        ORDER BY n.id DESC OFFSET $2 - 1 LIMIT 1), 0))) AS s) AS said
FROM chats c WHERE c.id = $1 AND c.deleted_at IS NULL
"""

IS_NEW = """
SELECT 1 FROM chats c WHERE c.id = $1 AND c.deleted_at IS NULL AND c.title_source = 'fallback'
    AND c.parent_chat_id IS NULL
    AND 1 = (SELECT count(*) FROM chat_messages m WHERE m.chat_id = c.id AND NOT m.deleted
        AND m.visibility <> 'model' AND m.role = 'user')
"""

SAVE_GENERATED = """
UPDATE chats SET title = $2, title_source = 'generated', version = version + 1
WHERE id = $1 AND deleted_at IS NULL AND title_source = 'fallback' RETURNING version
"""

SAVE_ASKED = """
UPDATE chats SET title = $3, retitling_until = NULL, version = version + 1,
    title_source = CASE title_source WHEN 'user' THEN 'user' ELSE 'generated' END
WHERE id = $1 AND deleted_at IS NULL AND retitling_until = $2 RETURNING version
"""

TAKE = """
WITH chat AS (
    SELECT id, retitling_until FROM chats
    WHERE id = $1 AND owner_id = $2 AND deleted_at IS NULL FOR NO KEY UPDATE
), taken AS (
    UPDATE chats c SET retitling_until = clock_timestamp() + interval '60 seconds' FROM chat
    WHERE c.id = chat.id
        AND (chat.retitling_until IS NULL OR chat.retitling_until < clock_timestamp())
    RETURNING c.retitling_until
)
SELECT taken.retitling_until FROM chat LEFT JOIN taken ON true
"""

HELD = "SELECT 1 FROM chats WHERE id = $1 AND retitling_until = $2 AND deleted_at IS NULL"

RELEASE = "UPDATE chats SET retitling_until = NULL WHERE id = $1 AND retitling_until = $2"


async def title_models(
    db: Database, keys: KeyRing, override: UUID | None, own: UUID | None
) -> list[Model]:
    """Models to ask, in this order: the override and no other, else a cheap one, the chat's."""
    rows = await db.fetch(MODELS, override, own, list(CHEAP))
    found = [to_model(row, keys)[0] for row in rows]
    return [model for model in found if model is not None]


async def is_new(db: Database, chat_id: UUID) -> bool:
    """Whether the chat has one visible user message and still its first title."""
    return await db.fetch_one(IS_NEW, chat_id) is not None


async def read_said(
    db: Database, chat_id: UUID
) -> tuple[UUID, UUID | None, list[tuple[str, str]]] | None:
    """Owner, last model, and the first and latest messages as lines; None: the chat is gone."""
    row = await db.fetch_one(CHAT, chat_id, MAX_MESSAGES)
    if row is None:
        return None
    lines = spoken(load(row["said"]) or [])
    return row["owner_id"], row["last_model_config_id"], lines


def spoken(messages: Sequence[Any]) -> list[tuple[str, str]]:
    """Role and text of each message that has text."""
    lines = [(message["role"], _text(message["content"])) for message in messages]
    return [(role, text) for role, text in lines if text and role in ("user", "assistant")]


async def save_generated(db: Database, chat_id: UUID, title: str) -> int | None:
    """Answers the chat's version; None when the chat is gone or has got another title."""
    row = await db.fetch_one(SAVE_GENERATED, chat_id, title)
    return row["version"] if row is not None else None


async def save_asked(db: Database, chat_id: UUID, until: datetime, title: str) -> int | None:
    """The same for whoever holds the lease. A title that a user gave stays a user's."""
    row = await db.fetch_one(SAVE_ASKED, chat_id, until, title)
    return row["version"] if row is not None else None


async def take_lease(db: Database, owner_id: UUID, chat_id: UUID) -> datetime:
    """For one title at a time; it runs out after a minute. Raises `NotFound`, `Conflict`."""
    row = await db.fetch_one(TAKE, chat_id, owner_id)
    if row is None:
        raise NotFound
    if row["retitling_until"] is None:
        raise Conflict("A title is being generated for this chat.")
    return row["retitling_until"]


async def holds_lease(db: Database, chat_id: UUID, until: datetime) -> bool:
    return await db.fetch_one(HELD, chat_id, until) is not None


async def release_lease(db: Database, chat_id: UUID, until: datetime) -> None:
    """Harmless when another has it meanwhile."""
    await db.fetch(RELEASE, chat_id, until)


def _text(parts: Sequence[Part]) -> str:
    return "\n".join(part["text"] for part in parts if part["type"] == "text").strip()
