"""Which tools of our own, and of the client's, a turn may use."""

from collections.abc import Iterable, Sequence
from functools import cache

from chatd.core.reasons import Reason
from chatd.core.situation import Situation
from chatd.core.tools import BuiltinTool, Dropped, JsonObject, OfferedTool
from chatd.policy.offer import definition_hash, parameters_of


def select_builtins(
    tools: Iterable[BuiltinTool], situation: Situation
) -> tuple[list[OfferedTool], list[Dropped]]:
    """Those offered in this turn, and why the others are not."""
    kept: list[OfferedTool] = []
    dropped: list[Dropped] = []
    for tool in tools:
        reason = builtin_refusal(tool, situation)
        if reason is None:
            kept.append(_offered(tool))
        else:
            dropped.append(Dropped(tool.spec.name, reason))
    return kept, dropped


def builtin_refusal(tool: BuiltinTool, situation: Situation) -> Reason | None:
    """Why a turn may not use a built-in tool; None when it may."""
    if tool.root_only and situation.is_child:
        return "root_only"
    if situation.plan_mode and not tool.in_plan_mode:
        return "tool_not_in_plan_mode"
    if situation.explore and not tool.spec.read_only:
        return "explore_only_reads"
    return None


def select_dynamic(declared: Sequence[JsonObject], situation: Situation) -> list[OfferedTool]:
    """The tools that the chat's client runs: none while planning, none in an explore chat."""
    if situation.plan_mode or situation.explore:
        return []
    return [
        OfferedTool(
            name=tool["name"],
            original_name=tool["name"],
            description=tool["description"],
            parameters=parameters_of(tool["input_schema"]),
            kind="dynamic",
        )
        for tool in declared
    ]


@cache
def _offered(tool: BuiltinTool) -> OfferedTool:
    spec = tool.spec
    return OfferedTool(
        name=spec.name,
        original_name=spec.name,
        description=spec.description,
        parameters=parameters_of(spec.input_schema),
        kind="builtin",
        safe=tool.safe,
        parallel=tool.parallel,
        stop_after=tool.stop_after,
        repeatable=tool.repeatable,
        definition_hash=definition_hash(spec),
    )
