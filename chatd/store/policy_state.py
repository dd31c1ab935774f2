"""The counter that tells workers to read the configuration again, and whether they may claim."""

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.store import hot, tables
from chatd.store.db import POLICY_MOVED, Database

STATE = f"SELECT version, claims_paused, {hot.LIMITED} AS limited FROM policy_state"

IN_USE = "SELECT id, version FROM mcp_server_configs WHERE enabled"

LOCKED_OUT = f"""
SELECT s.id AS server_id, asked.id AS user_id
FROM unnest($1::uuid[]) AS asked(id) LEFT JOIN users u ON u.id = asked.id
    CROSS JOIN mcp_server_configs s
WHERE u.id IS NULL OR u.suspended OR NOT {hot.MAY_USE.format(user="asked.id")}
    OR s.auth_type = 'oauth2' AND NOT EXISTS (SELECT 1 FROM oauth_tokens o
        WHERE o.user_id = asked.id AND o.server_id = s.id AND {hot.NEEDS_REAUTH} IS NULL)
    OR s.auth_type = 'user_oidc' AND NOT EXISTS (SELECT 1 FROM oauth_tokens o
        WHERE o.user_id = asked.id AND o.server_id IS NULL AND {hot.NEEDS_REAUTH} IS NULL)
"""
"""Who may not, and whose connection is gone."""


_IMPATIENT = text("SET LOCAL lock_timeout = '2s'")
"""Calls that are about to leave wait for this row, and so for all that its holder waits for."""


@dataclass(frozen=True, slots=True)
class PolicyState:
    version: int
    claims_paused: bool
    limited: bool
    """A model provider has a limit of turns: they are claimed one worker at a time."""


async def lock(session: AsyncSession) -> None:
    """For those who find out only behind other locks that they have to `bump`."""
    await session.exec(select(tables.PolicyState.version).with_for_update())


async def bump(session: AsyncSession) -> int:
    """The next policy version. Call it first: its row lock makes administrators take turns.

    After the commit everybody is told (`Database.on_policy`). From here on the transaction waits
    two seconds for a lock, then it raises `Unavailable`.
    """
    connection = await session.connection()
    await connection.execute(_IMPATIENT)
    session.info[POLICY_MOVED] = True
    version = col(tables.PolicyState.version)
    found = await session.exec(
        update(tables.PolicyState).values(version=version + 1).returning(version)
    )
    return found.scalar_one()


async def pause_claims(session: AsyncSession, paused: bool) -> bool:
    """Whether workers claim nothing more from now on. Answers what it was before."""
    connection = await session.connection()
    await connection.execute(_IMPATIENT)
    row = (await session.exec(select(tables.PolicyState).with_for_update())).one()
    before, row.claims_paused = row.claims_paused, paused
    await session.flush()
    return before


async def read_state(db: Database) -> PolicyState:
    row = await db.fetch_one(STATE)
    assert row is not None, "policy_state has one row"
    return PolicyState(row["version"], row["claims_paused"], row["limited"])


async def servers_in_use(db: Database) -> Mapping[UUID, int]:
    """Enabled servers and the version of their configuration."""
    return {row["id"]: row["version"] for row in await db.fetch(IN_USE)}


async def locked_out(db: Database, user_ids: Collection[UUID]) -> Set[tuple[UUID, UUID]]:
    """Which servers which of these users may no longer use, as (server, user)."""
    rows = await db.fetch(LOCKED_OUT, list(user_ids)) if user_ids else ()
    return {(row["server_id"], row["user_id"]) for row in rows}
