"""What a model is offered: built-in, external and workspace tools under their final names."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from uuid import UUID

from chatd.core.pins import definition_hash
from chatd.core.servers import McpServer
from chatd.core.tools import Dropped, JsonObject, OfferedTool, ToolSpec
from chatd.policy.intent import wrap_intent
from chatd.policy.names import qualify
from chatd.policy.tools import select_tools

_KEPT_KEYWORDS = ("$defs", "definitions", "additionalProperties")
"""Of a schema's root, beside type, properties and required. Providers refuse the whole request for
others, such as `anyOf`."""


@dataclass(frozen=True, slots=True)
class Offer:
    """The tools of a turn in the order offered, and why others are not among them."""

    tools: tuple[OfferedTool, ...]
    by_name: Mapping[str, OfferedTool]
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    tools: tuple[OfferedTool, ...]
    dropped: tuple[Dropped, ...]


class _Specs:
    """A tool list that is equal to itself only: comparing schemas would cost more than it saves."""

    __slots__ = ("specs",)

    def __init__(self, specs: tuple[ToolSpec, ...]) -> None:
        self.specs = specs

    def __hash__(self) -> int:
        return id(self.specs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Specs) and other.specs is self.specs


@dataclass(frozen=True)
class _Rules:
    """All of a server's configuration that decides what is offered; hashable."""

    id: UUID
    slug: str
    tool_allow_list: frozenset[str]
    tool_deny_list: frozenset[str]
    model_intent: bool
    trusted: bool
    plan_mode: bool
    allow_in_plan_mode: bool
    planned: frozenset[tuple[str, bool]]
    """Tools with a setting of their own for plan mode, and what it comes to."""

    def in_plan(self, tool: str) -> bool:
        return self._planned.get(tool, self.allow_in_plan_mode)

    def sets_plan(self, tool: str) -> bool:
        return tool in self._planned

    @cached_property
    def _planned(self) -> Mapping[str, bool]:
        return dict(self.planned)


def offer(
    servers: Iterable[tuple[McpServer, Sequence[ToolSpec]]],
    *,
    plan_mode: bool = False,
    builtin: Iterable[OfferedTool] = (),
    workspace: Iterable[OfferedTool] = (),
    dynamic: Iterable[OfferedTool] = (),
) -> Offer:
    """Names and orders the tools of the servers that `select_servers` kept.

    Built-in, then external, workspace and the client's own tools, each sorted by name, so that
    prompts are stable. Nobody governs a workspace's servers, so while planning none are used.
    A name that is taken already is dropped: nothing may stand in for a tool before it.
    """
    parts = [_offered(_rules(server, plan_mode), _Specs(tuple(specs))) for server, specs in servers]
    dropped = [drop for part in parts for drop in part.dropped]
    external = [tool for part in parts for tool in part.tools]
    groups = (builtin, external, () if plan_mode else workspace, dynamic)
    by_name: dict[str, OfferedTool] = {}
    for tool in [tool for group in groups for tool in sorted(group, key=_by_name)]:
        if tool.name in by_name:
            drop = Dropped(tool.original_name, "duplicate_name", tool.server_id, rule="names")
            dropped.append(drop)
        else:
            by_name[tool.name] = tool
    return Offer(tuple(by_name.values()), by_name, tuple(dropped))


def parameters_of(schema: JsonObject) -> JsonObject:
    """The schema as every provider takes it: an object with `properties` and `required`."""
    return {
        "type": "object",
        "properties": schema.get("properties") or {},
        "required": schema.get("required") or [],
        **{key: schema[key] for key in _KEPT_KEYWORDS if key in schema},
    }


@lru_cache(maxsize=256)
def _offered(rules: _Rules, listed: _Specs) -> _Part:
    """One server's tools under their final names; remembered, for it is the same at every step."""
    selection = select_tools(rules, listed.specs, plan_mode=rules.plan_mode)
    names = qualify(rules.slug, [spec.name for spec in selection.kept])
    tools = [_offered_tool(rules, spec, names[spec.name]) for spec in selection.kept]
    return _Part(tuple(sorted(tools, key=_by_name)), selection.dropped)


def _offered_tool(rules: _Rules, spec: ToolSpec, name: str) -> OfferedTool:
    parameters = parameters_of(spec.input_schema)
    return OfferedTool(
        name=name,
        original_name=spec.name,
        description=spec.description,
        parameters=wrap_intent(parameters) if rules.model_intent else parameters,
        server_id=rules.id,
        read_only=rules.trusted and spec.read_only,
        safe=rules.trusted and (spec.read_only or spec.idempotent),
        model_intent=rules.model_intent,
        definition_hash=definition_hash(spec),
    )


def _rules(server: McpServer, plan_mode: bool) -> _Rules:
    return _Rules(
        server.id,
        server.slug,
        server.tool_allow_list,
        server.tool_deny_list,
        server.model_intent,
        server.trust_annotations,
        plan_mode,
        server.allow_in_plan_mode,
        frozenset(
            (name, server.in_plan(name)) for name in server.tool_settings if server.sets_plan(name)
        ),
    )


def _by_name(tool: OfferedTool) -> str:
    return tool.name
