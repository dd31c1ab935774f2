"""What the tools of plan mode do."""

from uuid import uuid5

import orjson

from chatd.core.items import Item
from chatd.core.plans import MEDIA_TYPE
from chatd.core.tools import JsonObject, ToolResult
from chatd.core.work import PlannedCall
from chatd.store.plans import keep_plan
from chatd.store.work import patiently
from chatd.tools.planning import ASKED, read_proposal, read_questions
from chatd.turn.context import CallContext, Handler


async def propose_plan(
    context: CallContext, planned: PlannedCall, arguments: JsonObject, _item: Item | None
) -> ToolResult:
    proposal = read_proposal(arguments)
    if isinstance(proposal, ToolResult):
        return proposal
    db, claim = context.deps.db, context.turn.claim
    # One call is one file, whichever worker makes it.
    file_id = uuid5(claim.turn_id, f"plan {planned.step}/{planned.position}")
    name = await patiently(
        lambda: keep_plan(db, claim, file_id, name=proposal.name, content=proposal.content)
    )
    told = {
        "ok": True,
        "file_id": str(file_id),
        "name": name,
        "kind": "plan",
        "media_type": MEDIA_TYPE,
    }
    return ToolResult(orjson.dumps(told).decode())


async def ask_user_question(
    _context: CallContext, _planned: PlannedCall, arguments: JsonObject, _item: Item | None
) -> ToolResult:
    return read_questions(arguments) or ToolResult(ASKED)


HANDLERS: dict[str, Handler] = {
    "propose_plan": propose_plan,
    "ask_user_question": ask_user_question,
}
