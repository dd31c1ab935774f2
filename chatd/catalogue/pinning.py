"""A fresh tool list under its server's pins: read, decided, written where something changed."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from chatd.core.errors import Unavailable
from chatd.core.pins import Pin, definition_hash
from chatd.core.servers import SHARED, McpServer, Principal
from chatd.mcp.errors import ServerFailed
from chatd.mcp.listing import ToolList
from chatd.policy.pins import Listed, Resolution, resolve
from chatd.store import pins as store
from chatd.store.db import Database

WITHIN_S = 3.0
"""For PostgreSQL to answer: turns wait for a cold list."""
MAX_REMEMBERED = 1024

_UNREADABLE = ServerFailed("unavailable", "the pins of the server's tools cannot be read now")


class Pinning:
    """Remembers each server's pins for when the database is away."""

    def __init__(self, db: Database, *, within_s: float = WITHIN_S) -> None:
        self._db = db
        self._within_s = within_s
        self._known: dict[UUID, Mapping[str, Pin]] = {}

    async def resolve(
        self,
        server: McpServer,
        principal: Principal,
        fresh: ToolList,
        *,
        within_s: float = WITHIN_S,
    ) -> ToolList:
        """What may be served of a list that was just fetched, `within_s` at most.

        Without the database by the pins that were last known here. Without those as it is in
        `follow` mode; else raises `ServerFailed`, as it may hold anything.
        """
        listed = [Listed(spec, definition_hash(spec)) for spec in fresh.tools]

        def decide(pins: Mapping[str, Pin]) -> Resolution:
            shared = principal.key == SHARED.key
            return resolve(server.id, listed, pins, server.tool_changes, shared=shared)

        try:
            async with asyncio.timeout(min(self._within_s, within_s)):
                decided = await self._decided(server, listed, decide)
        except (Unavailable, TimeoutError):
            known = self._known.get(server.id)
            if known is None and server.tool_changes != "follow":
                raise _UNREADABLE from None
            decided = decide(known or {})
        quarantined = (*fresh.quarantined, *decided.quarantined)
        return replace(fresh, tools=decided.served, quarantined=quarantined)

    async def _decided(
        self,
        server: McpServer,
        listed: Sequence[Listed],
        decide: Callable[[Mapping[str, Pin]], Resolution],
    ) -> Resolution:
        """Deciding again under the pins that were written decides the same."""
        hashes = {tool.spec.name: tool.hash for tool in listed}
        pins = await store.read_pins(self._db, server.id, hashes)
        self._remember(server.id, pins, listed)
        if decide(pins).changes:
            written = await store.write_changes(
                self._db, server.id, server.version, hashes, lambda pins: decide(pins).changes
            )
            if written is not None:
                pins = written
                self._remember(server.id, pins, listed)
        return decide(pins)

    def _remember(self, server_id: UUID, pins: Mapping[str, Pin], listed: Sequence[Listed]) -> None:
        """With the definitions that the list agrees with, or that were known before."""
        specs = {(tool.spec.name, tool.hash): tool.spec for tool in listed}
        for name, pin in self._known.pop(server_id, {}).items():
            if pin.spec is not None:
                specs.setdefault((name, pin.definition_hash), pin.spec)
        self._known[server_id] = {
            name: replace(pin, spec=pin.spec or specs.get((name, pin.definition_hash)))
            for name, pin in pins.items()
        }
        if len(self._known) > MAX_REMEMBERED:
            del self._known[next(iter(self._known))]
