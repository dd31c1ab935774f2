"""What an owner's watchers are told about a chat that looks different now."""

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

News = Literal["created", "status_change", "title_change", "action_required", "deleted"]


@dataclass(frozen=True, slots=True)
class Look:
    """A chat as its owner's list shows it. `ended` is its last ended turn, `asks` its open items
    that somebody has to answer."""

    id: UUID
    owner_id: UUID
    version: int
    visible: bool
    title: str
    status: str
    ended: UUID | None
    asks: frozenset[str]


@dataclass(frozen=True, slots=True)
class Sighting:
    """A look and what to show with it: the Chat object and its open items."""

    look: Look
    chat: Any
    open_items: list[Any]


def news(before: Look | None, now: Look) -> list[News]:
    """An archived chat counts as deleted, until it is unarchived. What happened twice in between
    is told once, as it is now."""
    was = before if before is not None and before.visible else None
    if not now.visible:
        return ["deleted"] if was is not None else []
    told: list[News] = []
    if was is None:
        told.append("created")
    else:
        if was.title != now.title:
            told.append("title_change")
        if (was.status, was.ended) != (now.status, now.ended):
            told.append("status_change")
    if now.asks - (was.asks if was is not None else frozenset()):
        told.append("action_required")
    return told
