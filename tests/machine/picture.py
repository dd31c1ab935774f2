"""Everything clients and workers keep of all chats, as it stands between two actions."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from chatd.store.db import Database, load

CHATS = """
SELECT id, version, archived, deleted_at IS NOT NULL AS hidden, title, labels, plan_mode,
    pin_order, mcp_server_ids, last_read_message_id, context_from_message_id
FROM chats
"""

TURNS = """
SELECT id, chat_id, status, kind, position, user_message_id, content, lease_id, error, version,
    finished_at IS NOT NULL AS finished
FROM turns ORDER BY chat_id, position
"""

MESSAGES = """
SELECT id, chat_id, turn_id, step, position, role, content, visibility, deleted, version
FROM chat_messages ORDER BY chat_id, id
"""

JOURNAL = "SELECT chat_id, turn_id, step, position, state, result FROM tool_calls ORDER BY id"

ITEMS = """
SELECT id, chat_id, turn_id, step, position, tool_call_id, kind, state, answer, version
FROM open_items ORDER BY created_at, id
"""


@dataclass
class Chat:
    """One chat's rows; `seen` is what a client would show of it."""

    row: dict[str, Any]
    turns: dict[UUID, dict[str, Any]] = field(default_factory=dict[UUID, dict[str, Any]])
    messages: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    journal: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    items: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    @property
    def version(self) -> int:
        return self.row["version"]

    @property
    def seen(self) -> object:
        """Without versions and leases: what must not change unless the version does."""
        fields = {key: value for key, value in self.row.items() if key != "version"}
        hidden = {"version", "lease_id"}
        rows = [*self.turns.values(), *self.messages, *self.items]
        return fields, [{k: v for k, v in row.items() if k not in hidden} for row in rows]

    @property
    def history(self) -> list[dict[str, Any]]:
        """What a model reads."""
        return [
            message
            for message in self.messages
            if not message["deleted"]
            and message["visibility"] != "user"
            and message["id"] >= self.row["context_from_message_id"]
        ]

    def of(self, *statuses: str) -> list[UUID]:
        """The turns that have one of these statuses, in the order of the queue."""
        return [turn_id for turn_id, turn in self.turns.items() if turn["status"] in statuses]


Picture = dict[UUID, Chat]


async def look(db: Database) -> Picture:
    picture = {row["id"]: Chat(dict(row)) for row in await db.fetch(CHATS)}
    for row in await db.fetch(TURNS):
        picture[row["chat_id"]].turns[row["id"]] = _read(row)
    for row in await db.fetch(MESSAGES):
        picture[row["chat_id"]].messages.append(_read(row))
    for row in await db.fetch(JOURNAL):
        picture[row["chat_id"]].journal.append(_read(row))
    for row in await db.fetch(ITEMS):
        picture[row["chat_id"]].items.append(_read(row))
    return picture


def _read(row: Any) -> dict[str, Any]:
    return {
        key: load(value) if key in ("content", "result", "answer", "error") else value
        for key, value in row.items()
    }
