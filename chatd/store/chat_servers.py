"""The MCP servers a chat could use, for showing which of them it does."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from chatd.core.errors import NotFound
from chatd.core.servers import McpServer
from chatd.core.tools import JsonObject
from chatd.store import hot
from chatd.store.db import Database, load
from chatd.store.loading import to_server
from chatd.store.secrets import KeyRing

CHAT_SERVERS = f"""
SELECT c.plan_mode, c.mode, c.mcp_server_ids, c.dynamic_tools, c.parent_chat_id, c.root_chat_id,
    (SELECT jsonb_agg({hot.SERVER_ROW} ORDER BY s.slug) FROM mcp_server_configs s
        WHERE s.enabled OR s.id = ANY (c.mcp_server_ids)) AS servers
FROM chats c WHERE c.id = $1 AND c.owner_id = $2 AND c.deleted_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class ChatServers:
    """What policy decides on: every enabled server, and what the chat selected."""

    plan_mode: bool
    explore: bool
    dynamic_tools: list[JsonObject]
    selected_ids: frozenset[UUID]
    is_child: bool
    root_chat_id: UUID
    servers: tuple[McpServer, ...]


async def load_chat_servers(
    db: Database, keys: KeyRing, owner_id: UUID, chat_id: UUID
) -> ChatServers:
    """Raises `NotFound`, also for somebody else's chat."""
    row = await db.fetch_one(CHAT_SERVERS, chat_id, owner_id)
    if row is None:
        raise NotFound
    servers = cast(Iterable[dict[str, Any]], load(row["servers"]) or ())
    return ChatServers(
        plan_mode=row["plan_mode"] == "plan",
        explore=row["mode"] == "explore",
        dynamic_tools=load(row["dynamic_tools"]),
        selected_ids=frozenset(row["mcp_server_ids"]),
        is_child=row["parent_chat_id"] is not None,
        root_chat_id=row["root_chat_id"] or chat_id,
        servers=tuple(to_server(server, keys) for server in servers),
    )
