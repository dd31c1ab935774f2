"""A known tool list and how long it may be served; pure."""

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import orjson

from chatd.core.reasons import Reason
from chatd.core.servers import McpServer, Principal
from chatd.core.tools import Dropped, ToolSpec
from chatd.mcp.errors import FailureReason, ServerFailed
from chatd.mcp.listing import ToolList

FRESH_S = 60.0
"""For servers that do not say, and for empty lists whatever they say."""
STALE_S = 600.0
MAX_AGE_S = 24 * 3600.0

Age = Literal["fresh", "stale", "old", "expired"]


@dataclass(frozen=True, slots=True)
class Key:
    """Whose list of which configuration of a server."""

    server_id: UUID
    version: int
    principal: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What a server offers; `quarantined` are tools that cannot be offered."""

    server_id: UUID
    tools: tuple[ToolSpec, ...]
    quarantined: tuple[Dropped, ...] = ()
    instructions: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A server without tools in this turn, and why."""

    server_id: UUID
    reason: Reason
    detail: str = ""


class Entry:
    """A list as it was at `fetched_at` (seconds since the epoch).

    Fresh as long as its server says; then for ten minutes served while it is fetched again; then
    only where fetching fails. An empty list is no truth for longer than it is fresh: a server that
    is still starting has none either.
    """

    __slots__ = ("expires_at", "fetched_at", "fresh_until", "listed", "listing", "stale_until")

    def __init__(self, server_id: UUID, listed: ToolList, fetched_at: float) -> None:
        said = FRESH_S if listed.ttl_ms is None else listed.ttl_ms / 1000
        self.listed = listed
        self.fetched_at = fetched_at
        self.listing = Listing(server_id, listed.tools, listed.quarantined, listed.instructions)
        if listed.tools:
            self.fresh_until = fetched_at + min(said, MAX_AGE_S)
            self.stale_until = self.fresh_until + STALE_S
            self.expires_at = max(fetched_at + MAX_AGE_S, self.stale_until)
        else:
            self.fresh_until = fetched_at + min(said, FRESH_S)
            self.stale_until = self.expires_at = self.fresh_until

    def age(self, now: float) -> Age:
        if now < self.fresh_until:
            return "fresh"
        if now < self.stale_until:
            return "stale"
        return "old" if now < self.expires_at else "expired"


def key_of(server: McpServer, principal: Principal) -> Key:
    return Key(server.id, server.version, principal.key)


def skipped(server: McpServer, failed: ServerFailed) -> Skipped:
    return Skipped(server.id, _REASONS.get(failed.reason, "unreachable"), failed.message)


_REASONS: dict[FailureReason, Reason] = {
    "auth_required": "auth_required",
    "forbidden": "forbidden",
    "protocol": "bad_answer",
    "too_large": "bad_answer",
    "rpc": "bad_answer",
}


def packed(entry: Entry) -> bytes:
    return orjson.dumps({"fetched_at": entry.fetched_at, "listed": entry.listed})


def unpacked(server_id: UUID, data: bytes | str) -> Entry | None:
    """None when another release wrote it differently."""
    try:
        stored: dict[str, Any] = orjson.loads(data)
        listed = stored["listed"]
        return Entry(
            server_id,
            ToolList(
                tools=tuple(ToolSpec(**tool) for tool in listed["tools"]),
                quarantined=tuple(
                    Dropped(**drop | {"server_id": server_id}) for drop in listed["quarantined"]
                ),
                instructions=listed["instructions"],
                ttl_ms=listed["ttl_ms"],
                cache_scope=listed["cache_scope"],
            ),
            float(stored["fetched_at"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
