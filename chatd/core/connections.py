"""What became of a connection to an MCP server, as the connection log tells it."""

import time
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

ConnectionOutcome = Literal[
    "connected", "disconnected", "timeout", "refused", "unauthorized", "failed"
]


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """One connect, whatever came of it, or the end of a connection that there was.

    `duration_ms`: how long connecting took, or how long the connection lasted.
    """

    server_id: UUID
    server_slug: str
    user_id: UUID | None
    outcome: ConnectionOutcome
    error_code: str = ""
    duration_ms: int = 0
    tool_count: int | None = None
    """How many tools the server listed meanwhile; None: it was not asked."""
    seen_at: float = field(default_factory=time.monotonic)
