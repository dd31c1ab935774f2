"""Which tools of our own, and of the client's, a turn may use."""

from collections.abc import Iterable, Sequence
from functools import cache

from chatd.core.pins import definition_hash
from chatd.core.reasons import Refusal
from chatd.core.situation import Situation
from chatd.core.tools import BuiltinTool, Dropped, JsonObject, OfferedTool
from chatd.policy.offer import parameters_of


def select_builtins(
    tools: Iterable[BuiltinTool], situation: Situation
) -> tuple[list[OfferedTool], list[Dropped]]:
    """Those offered in this turn, and why the others are not."""
    kept: list[OfferedTool] = []
    dropped: list[Dropped] = []
    for tool in tools:
        refusal = builtin_refusal(tool, situation)
        if refusal is None:
            kept.append(_offered(tool))
        else:
            dropped.append(Dropped(tool.spec.name, refusal.reason, rule=refusal.rule))
    return kept, dropped


def builtin_refusal(tool: BuiltinTool, situation: Situation) -> Refusal | None:
    """Why a turn may not use a built-in tool; None when it may."""
    if tool.root_only and situation.is_child:
        return Refusal("root_only", "built-in: root chats only")
    if situation.plan_mode and not tool.in_plan_mode:
        return Refusal("tool_not_in_plan_mode", "built-in: not in plan mode")
    if tool.only_in_plan_mode and not situation.plan_mode:
        return Refusal("only_in_plan_mode", "built-in: only in plan mode")
    if situation.explore and not tool.spec.read_only:
        return Refusal("explore_only_reads", "built-in: not read-only")
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
