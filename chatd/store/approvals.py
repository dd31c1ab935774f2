"""Approvals that wait for somebody, with all that policy looks at; and denying them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from chatd.core.reasons import SENTENCES, Reason
from chatd.core.servers import SHARED, McpServer, principal_of
from chatd.core.situation import Situation
from chatd.core.tools import OfferedTool
from chatd.store import hot
from chatd.store.audit import note_approval
from chatd.store.db import Database, fetch_within, load
from chatd.store.items import close_item, lock_item
from chatd.store.loading import TurnLoader, to_situation
from chatd.store.versions import bump

BATCH = 100
NEW_S = 30
"""An approval is looked at again for so long: its call may have been decided on an older policy."""

_PINS = "SELECT 1 FROM tool_pins p WHERE p.server_id = CAST(i.data->>'server_id' AS uuid)"
_AS_PINNED = f"""(NOT EXISTS ({_PINS}) OR EXISTS ({_PINS}
        AND p.tool_name = i.data->>'original_name' AND p.changed_hash IS NULL))"""

_APPROVAL = f"""
SELECT i.id, i.chat_id, i.owner_id, i.data, t.plan_mode, t.mcp_server_ids, c.parent_chat_id, c.mode,
    c.root_chat_id, (SELECT version FROM policy_state) AS policy_version, {_AS_PINNED} AS as_pinned,
    ({hot.SERVERS}) AS servers, {hot.GROUPS.format(owner="t.owner_id")} AS group_ids
FROM open_items i JOIN turns t ON t.id = i.turn_id JOIN chats c ON c.id = i.chat_id
WHERE i.kind = 'approval' AND i.state = 'open'
"""

FIND_APPROVALS = f"""{_APPROVAL} AND i.id > $2 AND (
        $1::bigint IS DISTINCT FROM (SELECT version FROM policy_state)
        OR i.created_at > clock_timestamp() - interval '{NEW_S} seconds')
    ORDER BY i.id LIMIT {BATCH}
"""

READ_APPROVAL = f"{_APPROVAL} AND i.id = $1"

LOCK_CHAT = text("SELECT id FROM chats WHERE id = :chat FOR NO KEY UPDATE")


@dataclass(frozen=True, slots=True)
class Approval:
    """An open approval, and how its turn stands to the servers now."""

    item_id: UUID
    chat_id: UUID
    owner_id: UUID
    tool: OfferedTool
    servers: dict[UUID, McpServer]
    situation: Situation
    policy_version: int
    as_pinned: bool
    """The tool's server was last seen to say of it what is pinned."""
    shared: bool
    """Everybody's list of that server is the same."""

    @property
    def server(self) -> McpServer | None:
        """Whose tool it is."""
        return self.servers.get(self.tool.server_id) if self.tool.server_id else None


@dataclass(frozen=True, slots=True)
class Page:
    approvals: Sequence[Approval]
    broken: Sequence[tuple[UUID, str]]
    """Items that cannot be read, and why not."""
    last_id: UUID
    policy_version: int


Refusal = Callable[[Approval], Reason | None]


async def find_approvals(
    db: Database, loader: TurnLoader, known_version: int | None, after: UUID
) -> Page | None:
    """The next of all open ones if policy is no longer at this version, else of the new ones."""
    rows = await db.fetch(FIND_APPROVALS, known_version, after)
    if not rows:
        return None
    found: list[Approval] = []
    broken: list[tuple[UUID, str]] = []
    for row in rows:
        try:
            found.append(_approval(row, loader))
        except Exception as error:
            broken.append((row["id"], type(error).__name__))
    return Page(found, broken, rows[-1]["id"], rows[0]["policy_version"])


async def deny_refused(
    db: Database, loader: TurnLoader, approval: Approval, refusal: Refusal
) -> int | None:
    """Answer it in an administrator's stead if its call is still refused.

    Answers the chat's version, None if there was no need.
    """
    async with db.statements() as connection:
        await connection.execute(LOCK_CHAT, {"chat": approval.chat_id})
        item = await lock_item(connection, approval.chat_id, approval.item_id)
        rows = await fetch_within(connection, READ_APPROVAL, approval.item_id)
        if item is None or not rows:
            return None
        reason = refusal(_approval(rows[0], loader))
        if reason is None:
            return None
        version = await bump(connection, approval.chat_id)
        answer = {"decision": "deny", "reason": SENTENCES[reason]}
        await close_item(connection, item, version, answer=answer)
        await note_approval(connection, None, approval.item_id, "deny")
    return version


def _approval(row: Any, loader: TurnLoader) -> Approval:
    data = load(row["data"])
    servers = loader.read_servers(row["servers"])
    tool = OfferedTool(
        data["tool_name"], data["original_name"], "", {}, server_id=UUID(data["server_id"])
    )
    return Approval(
        item_id=row["id"],
        chat_id=row["chat_id"],
        owner_id=row["owner_id"],
        tool=tool,
        servers={server.id: server for server in servers},
        situation=to_situation(row, servers),
        policy_version=row["policy_version"],
        as_pinned=row["as_pinned"],
        shared=all(_shared(server, row) for server in servers if server.id == tool.server_id),
    )


def _shared(server: McpServer, row: Any) -> bool:
    principal = principal_of(
        server,
        user_id=row["owner_id"],
        chat_id=row["chat_id"],
        root_chat_id=row["root_chat_id"] or row["chat_id"],
    )
    return principal == SHARED
