"""Which servers a turn may use."""

from collections.abc import Iterable
from dataclasses import dataclass

from chatd.core.reasons import Reason
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
        reason = server_refusal(server, situation)
        if reason is None:
            kept.append(server)
        else:
            dropped.append(Dropped(server.slug, reason, server.id))
    missing = sorted(situation.selected_ids - servers.keys())
    dropped.extend(Dropped(str(server_id), "not_found", server_id) for server_id in missing)
    return Selection(tuple(kept), tuple(dropped))


def server_refusal(server: McpServer, situation: Situation) -> Reason | None:
    """Why this turn may not use the server; None when it may.

    Forced on means: offered although the user did not select it. It exempts from nothing else.
    """
    if server.availability != "force_on" and server.id not in situation.selected_ids:
        return "not_selected"
    if not server.enabled:
        return "disabled"
    if server.access == "groups" and not server.group_ids & situation.group_ids:
        return "not_in_group"
    if situation.plan_mode and situation.is_child:
        return "plan_sub_agent"
    if situation.plan_mode and not _plans(server):
        return "not_in_plan_mode"
    if server.auth.type == "unusable":
        return "unusable_credentials"
    if server.id in situation.unauthorised_ids:
        return "auth_required"
    return None


def _plans(server: McpServer) -> bool:
    """Whether any of its tools may be used while planning."""
    return server.allow_in_plan_mode or any(map(server.in_plan, server.tool_settings))
