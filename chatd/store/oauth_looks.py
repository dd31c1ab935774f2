"""When it was last looked, by itself, whether an MCP server still has the same authorization
server."""

from uuid import UUID

from chatd.store.db import Database

CLAIM = """
UPDATE mcp_server_configs SET oauth2_looked_at = clock_timestamp()
WHERE id = $1
    AND coalesce(oauth2_looked_at < clock_timestamp() - make_interval(secs => $2), true)
RETURNING id
"""


async def claim_look(db: Database, server_id: UUID, every_s: float) -> bool:
    """Whether it is time to look once more; nobody else in the fleet is told so for a while."""
    return await db.fetch_one(CLAIM, server_id, every_s) is not None
