"""The connection log's rows."""

import time
from collections.abc import Sequence

from chatd.core.connections import ConnectionEvent
from chatd.store.db import Database, dump

ADD_CONNECTIONS = """
INSERT INTO connection_log (at, server_id, server_slug, user_id, process, outcome, error_code,
    duration_ms, tool_count)
SELECT clock_timestamp() - make_interval(secs => c.age_s), c.server_id, c.server_slug, c.user_id,
    $1, c.outcome, c.error_code, c.duration_ms, c.tool_count
FROM jsonb_to_recordset($2::jsonb) AS c(age_s float8, server_id uuid, server_slug text,
    user_id uuid, outcome text, error_code text, duration_ms int, tool_count int)
"""


async def add_connections(db: Database, process: str, events: Sequence[ConnectionEvent]) -> None:
    """All in one statement; their times are the database's, less their age here."""
    now = time.monotonic()
    rows = [
        {
            "age_s": now - event.seen_at,
            "server_id": str(event.server_id),
            "server_slug": event.server_slug,
            "user_id": str(event.user_id) if event.user_id else None,
            "outcome": event.outcome,
            "error_code": event.error_code,
            "duration_ms": event.duration_ms,
            "tool_count": event.tool_count,
        }
        for event in events
    ]
    await db.fetch(ADD_CONNECTIONS, process, dump(rows))
