"""When it was last tried, by itself, whether an MCP server still has the same authorization server,
and to have another client there.

Each claim is one statement before the attempt, so that many at once, and those that fail, are as
few as those that go well.
"""

from uuid import UUID

from chatd.store.db import Database

CLAIM = """
UPDATE mcp_server_configs SET oauth2_looked_at = clock_timestamp()
WHERE id = $1
    AND coalesce(oauth2_looked_at < clock_timestamp() - make_interval(secs => $2), true)
RETURNING id
"""

CLAIM_RENEWAL = """
UPDATE mcp_server_configs SET oauth2_renewed_at = clock_timestamp()
WHERE id = $1
    AND (coalesce(oauth2_renewed_at < clock_timestamp() - make_interval(secs => $2), true)
        OR updated_by IS NOT NULL AND discovered_at > oauth2_renewed_at)
RETURNING id
"""
"""Or what is refused was registered for an administrator since."""


async def claim_look(db: Database, server_id: UUID, every_s: float) -> bool:
    """Whether it is time to look once more; nobody else in the fleet is told so for a while."""
    return await db.fetch_one(CLAIM, server_id, every_s) is not None


async def claim_renewal(db: Database, server_id: UUID, every_s: float) -> bool:
    """As `claim_look`, to register a client in the place of one that is not known any more."""
    return await db.fetch_one(CLAIM_RENEWAL, server_id, every_s) is not None
