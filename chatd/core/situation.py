"""Whose turn it is and how it runs: all that policy looks at beside the servers."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from chatd.core.servers import McpServer, UserAuth


@dataclass(frozen=True, slots=True)
class Situation:
    selected_ids: frozenset[UUID] = frozenset()
    """The chat's servers."""
    plan_mode: bool = False
    is_child: bool = False
    explore: bool = False
    group_ids: frozenset[UUID] = frozenset()
    """Of the chat's owner."""
    unauthorised_ids: frozenset[UUID] = frozenset()
    """Servers whose credentials the owner lacks; they are not tried anonymously."""


def unauthorised(servers: Iterable[McpServer]) -> frozenset[UUID]:
    """Those that want the user's own token, and this user has none that works."""
    return frozenset(
        server.id
        for server in servers
        if isinstance(server.auth, UserAuth) and not server.auth.connected
    )
