"""Which servers a turn may use."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from uuid import UUID

from chatd.core.reasons import Reason
from chatd.core.servers import McpServer
from chatd.core.tools import Dropped

NOBODY: frozenset[UUID] = frozenset()


@dataclass(frozen=True, slots=True)
class Selection:
    """The servers of a turn, sorted by slug, and why the others are not among them."""

    kept: tuple[McpServer, ...]
    dropped: tuple[Dropped, ...]


def select_servers(
    configured: Iterable[McpServer],
    *,
    selected_ids: Collection[UUID],
    plan_mode: bool = False,
    is_child: bool = False,
    unauthorised_ids: Collection[UUID] = NOBODY,
) -> Selection:
    """Those the chat selected and those that are forced on, without the ones that may not be used.

    `unauthorised_ids`: servers whose credentials this user lacks; they are not tried anonymously.
    A selected id without a configuration is dropped as `not_found`.
    """
    kept: list[McpServer] = []
    dropped: list[Dropped] = []
    servers = {server.id: server for server in configured}
    for server in sorted(servers.values(), key=lambda server: (server.slug, server.id)):
        reason = server_refusal(
            server,
            selected_ids=selected_ids,
            plan_mode=plan_mode,
            is_child=is_child,
            unauthorised_ids=unauthorised_ids,
        )
        if reason is None:
            kept.append(server)
        else:
            dropped.append(Dropped(server.slug, reason, server.id))
    missing = sorted(set(selected_ids) - servers.keys())
    dropped.extend(Dropped(str(server_id), "not_found", server_id) for server_id in missing)
    return Selection(tuple(kept), tuple(dropped))


def server_refusal(
    server: McpServer,
    *,
    selected_ids: Collection[UUID],
    plan_mode: bool = False,
    is_child: bool = False,
    unauthorised_ids: Collection[UUID] = NOBODY,
) -> Reason | None:
    """Why this turn may not use the server; None when it may.

    Forced on means: offered although the user did not select it. It exempts from nothing else.
    """
    if server.availability != "force_on" and server.id not in selected_ids:
        return "not_selected"
    if not server.enabled:
        return "disabled"
    if plan_mode and is_child:
        return "plan_sub_agent"
    if plan_mode and not server.allow_in_plan_mode:
        return "not_in_plan_mode"
    if server.auth.type == "unusable":
        return "unusable_credentials"
    if server.id in unauthorised_ids:
        return "auth_required"
    return None
