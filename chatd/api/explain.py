"""Trying a server out: what a user would be offered, whether it answers, what a tool says."""

import time
from dataclasses import replace
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field

from chatd import audit
from chatd.api import answers
from chatd.api.admin import AdminBody
from chatd.api.answers import CONFLICT, FORBIDDEN, NOT_FOUND, json_answer
from chatd.api.auth import Admin, by
from chatd.api.fields import Flag, says
from chatd.api.limits import JsonRoute
from chatd.api.parts import Parts, PartsDep
from chatd.api.tools import shown_drop, shown_tool
from chatd.audit import By, Target
from chatd.core.asking import InputRequired
from chatd.core.budget import cap
from chatd.core.errors import BadRequest, Conflict, Validation
from chatd.core.reasons import SENTENCES, Reason
from chatd.core.servers import McpServer, visitor
from chatd.core.situation import Situation, unauthorised
from chatd.core.tools import JsonObject, OfferedTool, ToolResult
from chatd.explaining import explain, withheld
from chatd.mcp.errors import FailureReason, ServerFailed
from chatd.mcp.probing import Probed
from chatd.policy.approvals import arguments_sha256
from chatd.policy.tools import tool_refusal
from chatd.store.chat_servers import load_group_ids, load_server

router = APIRouter(prefix="/mcp/servers", tags=["mcp servers"], route_class=JsonRoute)

TEST_S = 10.0
MAX_TEXT = 64 * 1024
"""Bytes of a trial call's answer."""

_CODES: dict[FailureReason, str] = {
    "refused": "unreachable",
    "closed": "unreachable",
    "blocked": "refused_address",
    "late": "timeout",
    "session_unknown": "bad_answer",
    "too_large": "bad_answer",
    "protocol": "bad_answer",
    "rpc": "server_error",
}
"""What people are told; the other reasons are good words already."""

ServerId = Annotated[
    UUID, Path(description="The MCP server config's id."), says("Invalid MCP server config ID.")
]
ToolName = Annotated[
    str, Path(description="The tool's original name, percent-encoded.", max_length=128)
]


class PreviewBody(AdminBody):
    """Whose turn it would be, and how it would run."""

    user_id: UUID
    plan_mode: Flag = False
    is_child: Flag = Field(default=False, description="As in the chat of a sub-agent.")
    selected: Flag = Field(default=True, description="As if the chat had selected the server.")


class PreviewVerdict(BaseModel):
    kept: bool
    reason: Reason | None
    rule: str = Field(description="What decided.")


class Preview(BaseModel):
    kept: list[answers.OfferedTool]
    dropped: list[answers.DroppedTool]
    server: PreviewVerdict


class TrialBody(AdminBody):
    user_id: UUID | None = Field(
        default=None, description="On whose behalf, where that matters; absent: yours."
    )


class TrialError(BaseModel):
    code: str = Field(
        description="unreachable, timeout, refused_address, auth_required, forbidden, not_found,"
        " unavailable, bad_answer, server_error or unusable_credentials."
    )
    message: str


class ServerInfo(BaseModel):
    name: str
    version: str


class TrialAnswer(BaseModel):
    ok: bool
    duration_ms: int
    protocol_version: str
    server_info: ServerInfo | None
    tool_count: int
    tools: list[str] = Field(description="Their original names.")
    error: TrialError | None


class CallBody(AdminBody):
    arguments: dict[str, Any] = Field(default_factory=dict[str, Any])


class CallAnswer(BaseModel):
    is_error: bool
    text: str
    outcome: str = Field(description="done, failed, unknown or cancelled.")
    duration_ms: int
    cut: bool = Field(description=f"The text had more than {MAX_TEXT} bytes.")


@router.post(
    "/{server}/preview",
    response_model=Preview,
    responses={**FORBIDDEN, **NOT_FOUND},
    summary="What a user would be offered of a server",
)
async def preview_server(
    request: Request, server: ServerId, body: PreviewBody, actor: Admin, parts: PartsDep
) -> Response:
    """A dry run of the decision that turns make. Asks the server on that user's behalf, so it is
    noted in the audit log before."""
    found = await load_server(parts.db, parts.keys, server, body.user_id)
    groups = await load_group_ids(parts.db, body.user_id)
    if groups is None:
        raise _no_such_user()
    await _note(by(request, actor), parts, found, "preview", body.model_dump(mode="json"))
    situation = Situation(
        selected_ids=frozenset({found.id} if body.selected else ()),
        plan_mode=body.plan_mode,
        is_child=body.is_child,
        group_ids=groups,
        unauthorised_ids=unauthorised([found]),
    )
    explained = await explain(
        parts.catalogue,
        [found],
        situation,
        lambda server: visitor(server, body.user_id),
        builtins=(),
    )
    verdict = explained.verdict(found)
    return json_answer(
        {
            "kept": [shown_tool(tool, {found.id: found}) for tool in explained.tools],
            "dropped": [shown_drop(drop) for drop in explained.dropped],
            "server": {"kept": verdict.kept, "reason": verdict.reason, "rule": verdict.rule},
        }
    )


@router.post(
    "/{server}/test",
    response_model=TrialAnswer,
    responses={**FORBIDDEN, **NOT_FOUND},
    summary="Connect to a server now",
)
async def try_server(
    request: Request,
    server: ServerId,
    actor: Admin,
    parts: PartsDep,
    body: TrialBody | None = None,
) -> Response:
    """A new connection, past all that is remembered of the server; for at most ten seconds. Noted
    in the audit log before it is made and after it."""
    user_id = body.user_id if body is not None and body.user_id is not None else actor.user_id
    found = await load_server(parts.db, parts.keys, server, user_id)
    if user_id != actor.user_id and await load_group_ids(parts.db, user_id) is None:
        raise _no_such_user()
    note = partial(_note, by(request, actor), parts, found, "test")
    on_behalf = {"user_id": str(user_id)}
    await note(on_behalf | {"outcome": "sent"})
    began = time.monotonic()
    error = _locked_out(found)
    probed = None
    if error is None:
        try:
            probed = await parts.sessions.probe(found, visitor(found, user_id), timeout_s=TEST_S)
        except ServerFailed as failed:
            code = _CODES.get(failed.reason, failed.reason)
            error = {"code": code, "message": failed.message}
    took = {"duration_ms": _ms(began)}
    await note(on_behalf | {"outcome": error["code"] if error else "connected"} | took)
    return json_answer(_found_out(probed) | {"error": error} | took)


@router.post(
    "/{server}/tools/{tool:path}/call",
    response_model=CallAnswer,
    responses={**FORBIDDEN, **NOT_FOUND, **CONFLICT},
    summary="Call a tool once",
)
async def call_tool(
    request: Request,
    server: ServerId,
    tool: ToolName,
    body: CallBody,
    actor: Admin,
    parts: PartsDep,
) -> Response:
    """Outside of any chat, and noted in the audit log before it is made and after it. What no turn
    may call is refused with 409: there is one decision for everybody. Groups do not count, for no
    user is asking."""
    found = await load_server(parts.db, parts.keys, server, actor.user_id)
    await _check(parts, found, tool, actor.user_id)
    note = partial(_note, by(request, actor), parts, found, "trial_call")
    call = {"tool": tool, "arguments_sha256": arguments_sha256(body.arguments)}
    await note(call | {"outcome": "sent"})  # if we die now, it was made all the same
    began = time.monotonic()
    result = await parts.sessions.call_tool(
        found,
        visitor(found, actor.user_id),
        tool,
        body.arguments,
        absolute_s=found.tool_timeout_s,
    )
    if isinstance(result, InputRequired):
        result = ToolResult("The tool asks for more input.", is_error=True, outcome="failed")
    answer: JsonObject = {
        "is_error": result.is_error,
        "text": cap(result.text, MAX_TEXT),
        "outcome": result.outcome,
        "duration_ms": _ms(began),
        "cut": len(result.text.encode()) > MAX_TEXT,
    }
    await note(call | {name: answer[name] for name in ("outcome", "duration_ms")})
    return json_answer(answer)


def _no_such_user() -> BadRequest:
    validations: list[Validation] = [{"field": "user_id", "detail": "There is no such user."}]
    return BadRequest("There is no such user.", validations=validations)


def _locked_out(server: McpServer) -> JsonObject | None:
    """Without credentials nothing is tried."""
    if server.auth.type == "unusable":
        return {"code": "unusable_credentials", "message": SENTENCES["unusable_credentials"]}
    if unauthorised([server]):
        return {"code": "auth_required", "message": SENTENCES["auth_required"]}
    return None


def _found_out(probed: Probed | None) -> JsonObject:
    if probed is None:
        nothing = {"ok": False, "protocol_version": "", "server_info": None}
        return nothing | {"tool_count": 0, "tools": []}
    names = [tool.name for tool in probed.listed.tools]
    return {
        "ok": True,
        "protocol_version": probed.protocol_version,
        "server_info": {"name": probed.name, "version": probed.version},
        "tool_count": len(names),
        "tools": names,
    }


async def _check(parts: Parts, server: McpServer, tool: str, user_id: UUID) -> None:
    """Raises `Conflict` where no turn could make this call."""
    situation = Situation(
        selected_ids=frozenset({server.id}), unauthorised_ids=unauthorised([server])
    )
    asked = OfferedTool(tool, tool, "", {}, server_id=server.id)
    reason = tool_refusal(asked, {server.id: replace(server, access="everyone")}, situation)
    if reason is None and server.tool_changes != "follow":
        reason = await withheld(parts.catalogue, server, visitor(server, user_id), tool)
    if reason is not None:
        raise Conflict(SENTENCES[reason], extra={"reason": reason})


async def _note(by: By, parts: Parts, server: McpServer, action: str, said: JsonObject) -> None:
    async with parts.db.transaction() as session:
        audit.record(session, by, action, Target("mcp_server", server.id), after=said)


def _ms(began: float) -> int:
    return int((time.monotonic() - began) * 1000)
