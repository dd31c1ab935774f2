"""The demo server's tools that ask people, and the one that talks while it works."""

from typing import Annotated, Any
from uuid import uuid4

from mcp.server.mcpserver import (
    AcceptedElicitation,
    Context,
    Elicit,
    ElicitationResult,
    RequestStateSecurity,
    Resolve,
)
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import (
    LOG_LEVEL_META_KEY,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitRequestURLParams,
    ElicitResult,
    InputRequiredResult,
    LoggingMessageNotification,
    LoggingMessageNotificationParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, Field

STATE = RequestStateSecurity(
    # Nothing here is worth forging, and a state must outlive a restart.
    keys=["the state of the demo server is no secret"],
    ttl=30 * 86_400,
)

_KEY = "answer"


class Name(BaseModel):
    name: str


async def _name(question: str) -> Elicit[Name]:
    return Elicit(question, Name)


async def ask(
    name: Annotated[ElicitationResult[Name], Resolve(_name)],
    question: str = "What is your name?",
) -> str:
    """Ask the user for a name, and greet it."""
    if isinstance(name, AcceptedElicitation):
        return f"Hello, {name.data.name}!"
    return f"The user chose: {name.action}"


async def visit(
    context: Context[Any, Any], url: str = "https://example.com/consent"
) -> str | InputRequiredResult:
    """Ask the user to visit a page; tells whether the user agreed."""
    message = "Please visit this page."
    if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        told = await context.elicit_url(message, url, str(uuid4()))
        return f"The user chose: {told.action}"
    answer = _answer(context)
    if answer is not None:
        return f"The user chose: {answer.action}"
    request = ElicitRequest(params=ElicitRequestURLParams(message=message, url=url))
    return InputRequiredResult(input_requests={_KEY: request})


async def confirm(action: str, context: Context[Any, Any]) -> str | InputRequiredResult:
    """Do something (in fact nothing), once the user has said yes. Keeps nothing between rounds."""
    if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        raise ToolError("needs the revision 2026-07-28")
    answer = _answer(context)
    if answer is None:
        schema = {
            "type": "object",
            "properties": {"sure": {"type": "boolean", "title": "Are you sure?"}},
            "required": ["sure"],
        }
        form = ElicitRequestFormParams(message=f"Really {action}?", requested_schema=schema)
        return InputRequiredResult(
            input_requests={_KEY: ElicitRequest(params=form)}, request_state=f"asked:{action}"
        )
    if context.request_state != f"asked:{action}":
        raise ToolError("the state is not of this call")
    sure = answer.action == "accept" and (answer.content or {}).get("sure") is True
    return f"done: {action}" if sure else f"not done: {action} ({answer.action})"


async def talk(
    n: Annotated[int, Field(ge=0, le=100_000)], context: Context[Any, Any], text: str = "line"
) -> str:
    """Log n messages and report progress after each."""
    meta = context.request_context.meta or {}
    wanted = context.protocol_version not in MODERN_PROTOCOL_VERSIONS or LOG_LEVEL_META_KEY in meta
    for number in range(1, n + 1):
        if wanted:
            # Not the SDK's own way to log, which warns that the protocol will give it up.
            params = LoggingMessageNotificationParams(
                level="info", logger="demo", data=f"{text} {number}"
            )
            await context.session.send_notification(
                LoggingMessageNotification(params=params), context.request_id
            )
        await context.report_progress(number, n, f"{number} of {n}")
    return f"said {n} lines"


def _answer(context: Context[Any, Any]) -> ElicitResult | None:
    answer = (context.input_responses or {}).get(_KEY)
    return answer if isinstance(answer, ElicitResult) else None
