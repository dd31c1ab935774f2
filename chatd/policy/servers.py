"""Which servers a turn may use."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from chatd.core.reasons import Refusal
from chatd.core.servers import McpServer
from chatd.core.situation import Situation
from chatd.core.tools import Dropped


@dataclass(frozen=True, slots=True)
class Selection:
    """The servers of a turn, sorted by slug, and why the others are not among them."""

    kept: tuple[McpServer, ...]
    dropped: tuple[Dropped, ...]


def select_servers(configured: Iterable[McpServer], situation: Situation) -> Selection:
    """Those the chat selected and those that are forced on, without the ones that may not be used.

    A selected id without a configuration is dropped as `not_found`.
    """
    kept: list[McpServer] = []
    dropped: list[Dropped] = []
    servers = {server.id: server for server in configured}
    for server in sorted(servers.values(), key=lambda server: (server.slug, server.id)):
        refusal = server_refusal(server, situation)
        if refusal is None:
            kept.append(server)
        else:
            drop = Dropped(server.slug, refusal.reason, server.id, rule=refusal.rule)
            dropped.append(drop)
    dropped.extend(
        Dropped(str(server_id), "not_found", server_id, rule="mcp_server_ids")
        for server_id in sorted(situation.selected_ids - servers.keys())
    )
    return Selection(tuple(kept), tuple(dropped))


def server_refusal(server: McpServer, situation: Situation) -> Refusal | None:
    """Why this turn may not use the server; None when it may.

    Forced on means: offered although the user did not select it. It exempts from nothing else.
    """
    if server.availability != "force_on" and server.id not in situation.selected_ids:
        return Refusal("not_selected", f"availability: {server.availability}")
    if not server.enabled:
        return Refusal("disabled", "enabled")
    if not _admits(server, situation):
        return Refusal("not_in_group", "access: groups")
    if situation.plan_mode and situation.is_child:
        return Refusal("plan_sub_agent", "plan_mode: sub-agent")
    if situation.plan_mode and not _plans(server):
        return Refusal("not_in_plan_mode", "allow_in_plan_mode")
    if server.auth.type == "unusable":
        return Refusal("unusable_credentials", "auth_type: unusable")
    if server.id in situation.unauthorised_ids:
        return Refusal("auth_required", f"auth_type: {server.auth.type}")
    return None


def missing_account(servers: Mapping[UUID, McpServer], selection: Selection) -> McpServer | None:
    """A server that no turn may go without, and the user has not connected it."""
    for drop in selection.dropped:
        server = servers.get(drop.server_id) if drop.server_id else None
        if server is None or drop.reason != "auth_required":
            continue
        if server.required_auth and server.availability == "force_on":
            return server
    return None


def chosen_by(server: McpServer) -> str:
    """The rule by which a server that is not refused is there."""
    return "availability: force_on" if server.availability == "force_on" else "mcp_server_ids"


def hidden(server: McpServer, situation: Situation) -> bool:
    """Whether a member is not to learn that there is such a server."""
    return not server.enabled or not _admits(server, situation)


def _admits(server: McpServer, situation: Situation) -> bool:
    return server.access == "everyone" or bool(server.group_ids & situation.group_ids)


def _plans(server: McpServer) -> bool:
    """Whether any of its tools may be used while planning."""
    return server.allow_in_plan_mode or any(map(server.in_plan, server.tool_settings))
