"""The MCP servers a chat could use, for showing which of them it does."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, cast
from uuid import UUID

from chatd.core.errors import NotFound
from chatd.core.servers import McpServer
from chatd.core.situation import Situation
from chatd.core.tools import JsonObject
from chatd.store import hot
from chatd.store.db import Database, load
from chatd.store.loading import to_server, to_situation
from chatd.store.secrets import KeyRing

CHAT_SERVERS = f"""
SELECT c.plan_mode, c.mode, c.mcp_server_ids, c.dynamic_tools, c.parent_chat_id, c.root_chat_id,
    {hot.GROUPS.format(owner="c.owner_id")} AS group_ids,
    (SELECT jsonb_agg({hot.SERVER_ROW.format(user="c.owner_id")} ORDER BY s.slug)
        FROM mcp_server_configs s
        WHERE s.enabled OR s.id = ANY (c.mcp_server_ids)) AS servers
FROM chats c WHERE c.id = $1 AND c.owner_id = $2 AND c.deleted_at IS NULL
"""

ONE_SERVER = f"""
SELECT {hot.SERVER_ROW.format(user="CAST($2 AS uuid)")} AS server
FROM mcp_server_configs s WHERE s.id = $1
"""

GROUPS_OF = f"SELECT {hot.GROUPS.format(owner='u.id')} AS group_ids FROM users u WHERE u.id = $1"

ITEM_TURN = """
SELECT t.plan_mode, t.mcp_server_ids FROM open_items i JOIN turns t ON t.id = i.turn_id
WHERE i.id = $1
"""


@dataclass(frozen=True, slots=True)
class ChatServers:
    """What policy decides on: every enabled server, and how the chat stands to them."""

    situation: Situation
    dynamic_tools: list[JsonObject]
    root_chat_id: UUID
    servers: tuple[McpServer, ...]


async def load_chat_servers(
    db: Database, keys: KeyRing, owner_id: UUID, chat_id: UUID
) -> ChatServers:
    """Raises `NotFound`, also for somebody else's chat."""
    row = await db.fetch_one(CHAT_SERVERS, chat_id, owner_id)
    if row is None:
        raise NotFound
    rows = cast(Iterable[dict[str, Any]], load(row["servers"]) or ())
    servers = tuple(to_server(server, keys) for server in rows)
    return ChatServers(
        situation=to_situation(row, servers),
        dynamic_tools=load(row["dynamic_tools"]),
        root_chat_id=row["root_chat_id"] or chat_id,
        servers=servers,
    )


async def load_server(
    db: Database, keys: KeyRing, server_id: UUID, user_id: UUID | None
) -> McpServer:
    """One server, enabled or not, with this user's connection to it. Raises `NotFound`."""
    row = await db.fetch_one(ONE_SERVER, server_id, user_id)
    if row is None:
        raise NotFound
    return to_server(cast(dict[str, Any], load(row["server"])), keys)


async def load_group_ids(db: Database, user_id: UUID) -> frozenset[UUID] | None:
    """The groups of a user; None when there is no such user."""
    row = await db.fetch_one(GROUPS_OF, user_id)
    return frozenset(row["group_ids"]) if row is not None else None


async def load_turn_situation(db: Database, item_id: UUID, chat: Situation) -> Situation:
    """That of the turn which waits for this item: the chat may have been set otherwise since."""
    row = await db.fetch_one(ITEM_TURN, item_id)
    if row is None:
        raise NotFound
    return replace(
        chat,
        selected_ids=frozenset(row["mcp_server_ids"]),
        plan_mode=row["plan_mode"] == "plan",
    )
