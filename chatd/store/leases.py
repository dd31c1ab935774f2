"""Which turns a worker still holds, and whether their user has stopped them."""

from collections.abc import Sequence
from uuid import UUID

from chatd.core.work import Claim
from chatd.store import hot
from chatd.store.db import Database


async def held_statuses(db: Database, claims: Sequence[Claim]) -> dict[UUID, str]:
    """The status, by lease, of those that still carry ours; it waits for no lock."""
    rows = await db.fetch(hot.LEASES, [claim.turn_id for claim in claims])
    ours = {claim.lease_id for claim in claims}
    return {row["lease_id"]: row["status"] for row in rows if row["lease_id"] in ours}
