"""Which tools of a server a turn may use, and whether one call may still go out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from chatd.core.reasons import Reason, Refusal
from chatd.core.servers import McpServer
from chatd.core.situation import Situation
from chatd.core.tools import Dropped, OfferedTool, ToolSpec
from chatd.policy.servers import server_refusal


@dataclass(frozen=True, slots=True)
class ToolSelection:
    """The tools of one server in its order, and why the others are not among them."""

    kept: tuple[ToolSpec, ...]
    dropped: tuple[Dropped, ...]


class ToolRules(Protocol):
    """What of a server's configuration decides about its tools."""

    @property
    def id(self) -> UUID: ...
    @property
    def tool_allow_list(self) -> frozenset[str]: ...
    @property
    def tool_deny_list(self) -> frozenset[str]: ...
    def in_plan(self, tool: str) -> bool: ...
    def sets_plan(self, tool: str) -> bool: ...


def select_tools(
    server: ToolRules, specs: Iterable[ToolSpec], *, plan_mode: bool = False
) -> ToolSelection:
    """Applies the server's lists to original names, exactly and case-sensitively."""
    kept: list[ToolSpec] = []
    dropped: list[Dropped] = []
    seen: set[str] = set()
    for spec in specs:
        refusal = _name_refusal(spec.name, server, plan_mode=plan_mode)
        if refusal is None and spec.name in seen:
            refusal = Refusal("duplicate_name", "tools/list")
        seen.add(spec.name)
        if refusal is None:
            kept.append(spec)
        else:
            dropped.append(Dropped(spec.name, refusal.reason, server.id, rule=refusal.rule))
    return ToolSelection(tuple(kept), tuple(dropped))


Served = Mapping[tuple[UUID, str], str]
"""What servers' pins let through now: by server and original name, the definition's hash."""


def tool_refusal(
    tool: OfferedTool,
    servers: Mapping[UUID, McpServer],
    situation: Situation,
    served: Served | None = None,
) -> Reason | None:
    """Why this call may not go out; None when it may. The decision of the listing, made again.

    `servers` are the configurations as they are now, not as they were when the tool was offered;
    None for `served`: nothing has moved since then. A server that is followed serves anything.
    """
    if tool.server_id is None:
        return None
    server = servers.get(tool.server_id)
    if server is None:
        return "not_found"
    refusal = server_refusal(server, situation) or _name_refusal(
        tool.original_name, server, plan_mode=situation.plan_mode
    )
    if refusal is not None:
        return refusal.reason
    if served is None or server.tool_changes == "follow":
        return None
    same = served.get((server.id, tool.original_name)) == tool.definition_hash
    return None if same else "changed"


def _name_refusal(name: str, server: ToolRules, *, plan_mode: bool) -> Refusal | None:
    """Deny always wins; a non-empty allow list restricts to what it names."""
    if name in server.tool_deny_list:
        return Refusal("denied", "tool_deny_list")
    if server.tool_allow_list and name not in server.tool_allow_list:
        return Refusal("not_in_allow_list", "tool_allow_list")
    if plan_mode and not server.in_plan(name):
        own = f"tool_settings.{name}.plan_mode"
        rule = own if server.sets_plan(name) else "allow_in_plan_mode"
        return Refusal("tool_not_in_plan_mode", rule)
    return None
