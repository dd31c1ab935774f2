"""Turns that wait for their user to connect an account, and what is known of such an account.

Whoever has saved a grant answers them right afterwards; a sweeper finds what was missed. Not in the
grant's own transaction, which holds the policy lock: commits that hold a chat's lock wait for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from chatd.store import hot
from chatd.store.db import Database
from chatd.store.items import close_item, lock_item
from chatd.store.sweeping import LOCK_CHAT
from chatd.store.versions import bump

CONNECTED = {"action": "connected"}

_CONNECTED = f"""
SELECT i.id, i.chat_id FROM open_items i
    JOIN mcp_server_configs s ON s.id = CAST(i.data->>'server_id' AS uuid)
    JOIN oauth_tokens o ON o.user_id = i.owner_id
        AND CASE s.auth_type WHEN 'oauth2' THEN o.server_id = s.id ELSE o.server_id IS NULL END
WHERE i.state = 'open' AND i.kind = 'auth' AND {hot.NEEDS_REAUTH} IS NULL
    AND o.id::text IS DISTINCT FROM i.memory->>'connection_id'
    AND ($1::uuid IS NULL OR i.owner_id = $1)
LIMIT 100
"""
"""A server may have refused a connection that looks well: only another one is an answer."""

_POINTLESS = f"""
SELECT i.id, i.chat_id FROM open_items i
    LEFT JOIN mcp_server_configs s ON s.id = CAST(i.data->>'server_id' AS uuid) AND s.enabled
        AND s.auth_type IN ('oauth2', 'user_oidc')
        AND {hot.MAY_USE.format(user="i.owner_id")}
WHERE i.state = 'open' AND i.kind = 'auth' AND s.id IS NULL LIMIT 100
"""

_ACCOUNT = f"""
SELECT {hot.NEEDS_REAUTH} AS needs_reauth, o.scopes, o.wanted_scopes
FROM oauth_tokens o WHERE o.id = $1
"""


@dataclass(frozen=True, slots=True)
class Account:
    """`wants_more`: its server has asked for scopes that were not granted yet."""

    needs_reauth: str | None
    wants_more: bool
    missing_scopes: tuple[str, ...]


async def find_connected(db: Database, user_id: UUID | None = None) -> Sequence[tuple[UUID, UUID]]:
    """Items, of this user or of all, whose account is connected by now; with their chats."""
    return [(row["id"], row["chat_id"]) for row in await db.fetch(_CONNECTED, user_id)]


async def find_pointless(db: Database) -> Sequence[tuple[UUID, UUID]]:
    """Items whose server is gone, or not their owner's to use any more, or wants no account; with
    their chats."""
    return [(row["id"], row["chat_id"]) for row in await db.fetch(_POINTLESS)]


async def answer_connected(db: Database, item_id: UUID, chat_id: UUID) -> int | None:
    """Answers the chat's version, None if the item was closed meanwhile."""
    async with db.statements() as connection:
        await connection.execute(LOCK_CHAT, {"chat": chat_id})
        item = await lock_item(connection, chat_id, item_id)
        if item is None or item.state != "open":
            return None
        version = await bump(connection, chat_id)
        await close_item(connection, item, version, answer=CONNECTED, by=item.owner_id)
    return version


async def read_account(db: Database, connection_id: UUID | None) -> Account | None:
    """What has become of a connection; None: it is gone, or was never made."""
    row = await db.fetch_one(_ACCOUNT, connection_id)
    if row is None:
        return None
    granted, wanted = row["scopes"].split(), row["wanted_scopes"].split()
    missing = tuple(scope for scope in wanted if scope not in granted)
    return Account(row["needs_reauth"], bool(wanted), missing)
