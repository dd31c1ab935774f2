"""What each built-in tool does."""

from collections.abc import Mapping

from chatd.core.items import Item
from chatd.core.tools import JsonObject, ToolResult
from chatd.core.work import PlannedCall
from chatd.turn import agents, planning
from chatd.turn.context import CallContext, Handler
from chatd.turn.results import read


async def _read_result(
    context: CallContext, _planned: PlannedCall, arguments: JsonObject, _item: Item | None
) -> ToolResult:
    claim = context.turn.claim
    return await read(context.deps.db, claim.chat_id, arguments, context.max_text)


HANDLERS: Mapping[str, Handler] = {
    "read_result": _read_result,
    **agents.HANDLERS,
    **planning.HANDLERS,
}
"""By name; a test holds that they are those of `chatd.tools.BUILTINS`."""
