"""Rows as the API shows them: plain values, ready for JSON."""

from typing import Any
from uuid import UUID

from chatd.core.messages import NO_USAGE
from chatd.core.times import rfc3339
from chatd.core.turns import TurnStatus, chat_status
from chatd.store.db import load

Row = Any
"""A record, a row of JSON, or a dictionary with the same names."""


def text_id(value: UUID | None) -> str | None:
    return str(value) if value is not None else None


def chat_view(row: Row, *, status: str, last_error: Any = None, has_unread: bool = False) -> Any:
    """A Chat object (facts 2.10)."""
    return {
        "id": str(row["id"]),
        "owner_id": str(row["owner_id"]),
        "parent_chat_id": text_id(row["parent_chat_id"]),
        "root_chat_id": text_id(row["root_chat_id"]),
        "last_model_config_id": text_id(row["last_model_config_id"]),
        "last_reasoning_effort": row["last_reasoning_effort"],
        "title": row["title"],
        "status": status,
        "plan_mode": row["plan_mode"],
        "client_type": row["client_type"],
        "last_error": last_error,
        "created_at": rfc3339(row["created_at"]),
        "updated_at": rfc3339(row["updated_at"]),
        "archived": row["archived"],
        "pin_order": row["pin_order"],
        "mcp_server_ids": [str(value) for value in row["mcp_server_ids"]],
        "labels": load(row["labels"]),
        "files": [file_view(file) for file in load(row.get("files")) or ()],
        "has_unread": has_unread,
        "warnings": [],
        "children": [],
    }


def stored_chat_view(row: Row) -> Any:
    """A Chat object of a row that carries its derived columns (see `chats.CHATS`)."""
    return chat_view(
        row,
        status=chat_status(row["active_status"], row["last_status"]),
        last_error=load(row["last_error"]) if row["active_status"] is None else None,
        has_unread=row["has_unread"],
    )


def turn_view(row: Row, *, usage: Any = None) -> Any:
    """A Turn object (DESIGN 7). One that waits for sub-agents only is shown as running."""
    open_items: list[Any] = load(row.get("open_items")) or []
    waits_for_agents = open_items and all(item["kind"] == "child" for item in open_items)
    return {
        "id": str(row["id"]),
        "chat_id": str(row["chat_id"]),
        "kind": row["kind"],
        "status": TurnStatus.RUNNING if waits_for_agents else row["status"],
        "attempt": row["attempt"],
        "plan_mode": row["plan_mode"],
        "model_config_id": text_id(row["model_config_id"]),
        "reasoning_effort": row["reasoning_effort"],
        "mcp_server_ids": [str(value) for value in row["mcp_server_ids"]],
        "user_message_id": row["user_message_id"],
        "queued_at": rfc3339(row["queued_at"]),
        "started_at": rfc3339(row["started_at"]),
        "first_token_at": rfc3339(row["first_token_at"]),
        "finished_at": rfc3339(row["finished_at"]),
        "open_items": open_items,
        "notices": load(row["notices"]),
        "error": load(row["error"]),
        "usage": usage or {**NO_USAGE, "total_cost_micros": None},
    }


def file_view(row: Row) -> Any:
    """A file as its chat lists it."""
    return {
        "id": str(row["id"]),
        "name": row["name"],
        "media_type": row["media_type"],
        "size": row["size"],
        "created_at": rfc3339(row["created_at"]),
    }


def queued_view(row: Row) -> Any:
    """A queued message: its id is its turn's."""
    return {
        "id": str(row["id"]),
        "chat_id": str(row["chat_id"]),
        "kind": row["kind"],
        "content": load(row["content"]),
        "model_config_id": text_id(row["model_config_id"]),
        "created_at": rfc3339(row["queued_at"]),
    }


def message_view(row: Row) -> Any:
    """A Message object (facts 2.10); `usage` is null for messages no model wrote."""
    usage = load(row["usage"])
    return {
        "id": row["id"],
        "chat_id": str(row["chat_id"]),
        "turn_id": str(row["turn_id"]),
        "created_by": text_id(row["created_by"]),
        "model_config_id": text_id(row["model_config_id"]),
        "created_at": rfc3339(row["created_at"]),
        "role": row["role"],
        "content": load(row["content"]),
        "usage": {
            **usage,
            "context_limit": row["context_limit"],
            "total_cost_micros": row["total_cost_micros"],
        }
        if usage is not None
        else None,
    }
