"""What a user asks of a chat, checked for shape by the front door and for sense by commands."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from chatd.core.messages import Part
from chatd.core.models import ReasoningEffort
from chatd.core.tools import JsonObject
from chatd.core.turns import OnAuthRequired

MAX_QUEUED = 20
"""Turns waiting behind the active one; one more is refused with 429."""

MAX_TITLE = 200


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks: with a token, or signed in with a browser. With neither it is work that the system
    does by itself."""

    user_id: UUID
    role: Literal["admin", "member"]
    token_id: UUID | None = None
    session_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class NewTurn:
    """One user message and the settings it was typed with; None leaves the chat's own."""

    content: list[Part]
    model_config_id: UUID | None = None
    reasoning_effort: ReasoningEffort | None = None
    mcp_server_ids: tuple[UUID, ...] | None = None
    """None: unchanged (for a new chat: the default_on servers). Empty: none."""
    plan_mode: Literal["", "plan"] | None = None
    """None: unchanged. Empty: off."""
    kind: Literal["message", "compact"] = "message"
    """A compaction says nothing: it has no content."""
    on_auth_required: OnAuthRequired = "skip"


@dataclass(frozen=True, slots=True)
class NewChat:
    """A chat and its first turn."""

    turn: NewTurn
    system_prompt: str = ""
    labels: dict[str, str] = field(default_factory=dict[str, str])
    client_type: Literal["ui", "api"] = "api"
    dynamic_tools: list[JsonObject] = field(default_factory=list[JsonObject])
    """Tools that the client runs itself: name, description, input_schema."""


@dataclass(frozen=True, slots=True)
class ChatPatch:
    """None leaves a field as it is."""

    title: str | None = None
    labels: dict[str, str] | None = None
    archived: bool | None = None
    model_config_id: UUID | None = None
    reasoning_effort: ReasoningEffort | None = None
    plan_mode: Literal["", "plan"] | None = None
    mcp_server_ids: tuple[UUID, ...] | None = None
    pin_order: int | None = None
    """0 unpins; anything else is a place among the pinned, or the last one for a new pin."""


@dataclass(frozen=True, slots=True)
class Once:
    """An `Idempotency-Key`: unique per owner, path and key for 24 hours."""

    path: str
    key: str
    request_sha256: bytes


def fallback_title(content: list[Part]) -> str:
    """The first six words of the first text, at most 80 characters."""
    texts = (part["text"] for part in content if part["type"] == "text" and part["text"].strip())
    words = next(texts, "").split()
    if not words:
        return "New Chat"
    title = " ".join(words[:6])
    if len(title) <= 80 and len(words) <= 6:
        return title
    return title[:79].rstrip() + "…"


def pinned_at(others: Sequence[UUID], chat_id: UUID, *, now: int, wanted: int) -> list[UUID]:
    """The pinned chats in order. A chat that is not pinned yet joins at the end."""
    ids = list(others)
    if wanted:
        ids.insert(min(wanted, len(ids) + 1) - 1 if now else len(ids), chat_id)
    return ids
