"""Pinned tools: administrators see what a server's tools were and are, and accept changes."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from pydantic import Field, StringConstraints

from chatd import audit
from chatd.api.admin import AdminBody
from chatd.api.answers import CONFLICT, FORBIDDEN, NOT_FOUND, json_answer
from chatd.api.auth import Admin, by
from chatd.api.limits import JsonRoute
from chatd.api.parts import PartsDep
from chatd.api.pin_answers import PinnedTools, ToolDiff
from chatd.api.servers import ServerId
from chatd.audit import By, Target
from chatd.core.diffs import changed_paths, field_diffs
from chatd.core.errors import BadRequest
from chatd.store import pins, policy_state

router = APIRouter(
    prefix="/mcp/servers/{server}/tools", tags=["mcp servers"], route_class=JsonRoute
)

MAX_TOOLS = 2000

ToolName = Annotated[
    str, Path(description="The tool's own name, percent-encoded: it may hold slashes.")
]
Hash = Annotated[
    str,
    StringConstraints(pattern="^[0-9a-f]{64}$"),
    Field(description="`changed_hash` of the definition that was looked at."),
]


class AcceptBody(AdminBody):
    definition_hash: Hash


class AcceptedTool(AcceptBody):
    name: Annotated[str, Field(min_length=1, max_length=128)]


class AcceptAllBody(AdminBody):
    tools: Annotated[list[AcceptedTool], Field(min_length=1, max_length=MAX_TOOLS)]


READ: Any = {**FORBIDDEN, **NOT_FOUND}
WRITE: Any = {**READ, **CONFLICT}


@router.get("", response_model=PinnedTools, responses=READ, summary="A server's pinned tools")
async def list_tools(server: ServerId, _: Admin, parts: PartsDep) -> Response:
    """Every tool that was ever listed, also those that the server no longer has."""
    async with parts.db.transaction() as session:
        return json_answer({"tools": await pins.list_pins(session, server)})


@router.get("/{tool:path}/diff", response_model=ToolDiff, responses=READ, summary="A tool's change")
async def get_diff(server: ServerId, tool: ToolName, _: Admin, parts: PartsDep) -> Response:
    """Between what is pinned and what waits to be accepted; empty when nothing waits."""
    async with parts.db.transaction() as session:
        row = await pins.get_pin(session, server, tool)
    before, after = row.definition, row.changed or row.definition
    paths = changed_paths(before.get("input_schema"), after.get("input_schema"))
    return json_answer(
        {
            "name": tool,
            "before": row.definition or None,
            "before_hash": row.definition_hash,
            "after": row.changed,
            "after_hash": row.changed_hash,
            "fields": field_diffs(before, after),
            "schema_changes": list(paths),
        }
    )


@router.post(
    "/accept", response_model=PinnedTools, responses=WRITE, summary="Accept changes of tools"
)
async def accept_all(
    request: Request, server: ServerId, body: AcceptAllBody, actor: Admin, parts: PartsDep
) -> Response:
    """All of them or none: 409 when one is not the change that waits now."""
    accepted = {tool.name: tool.definition_hash for tool in body.tools}
    if len(accepted) < len(body.tools):
        raise BadRequest("A tool is there twice.")
    return await _accept(parts, server, accepted, by(request, actor), actor.user_id)


@router.post(
    "/{tool:path}/accept", response_model=PinnedTools, responses=WRITE, summary="Accept a change"
)
async def accept(
    request: Request,
    server: ServerId,
    tool: ToolName,
    body: AcceptBody,
    actor: Admin,
    parts: PartsDep,
) -> Response:
    """The tool is pinned as it was looked at; 409 when that is not the change that waits now."""
    accepted = {tool: body.definition_hash}
    return await _accept(parts, server, accepted, by(request, actor), actor.user_id)


@router.delete("/{tool:path}", status_code=204, responses=READ, summary="Forget a pinned tool")
async def forget(
    request: Request, server: ServerId, tool: ToolName, actor: Admin, parts: PartsDep
) -> Response:
    """It counts as a new tool when it is listed next."""
    async with parts.db.transaction() as session:
        await policy_state.bump(session)
        moved = await pins.forget(session, server, tool)
        before = {"tool": tool, "definition_hash": moved.before}
        audit.record(session, by(request, actor), "forget_tool", _target(server), before=before)
    return Response(status_code=204)


async def _accept(
    parts: PartsDep, server: UUID, accepted: dict[str, str], who: By, actor_id: UUID
) -> Response:
    async with parts.db.transaction() as session:
        await policy_state.bump(session)
        moved = await pins.accept(session, server, accepted, actor_id)
        for move in moved:
            before = {"definition_hash": move.before}
            after = {
                "tool": move.tool,
                "definition_hash": move.after,
                "fields": list(move.fields),
            }
            audit.record(session, who, "accept_tool", _target(server), before=before, after=after)
    async with parts.db.transaction() as session:  # policy is everybody's: held no longer
        return json_answer({"tools": await pins.list_pins(session, server, accepted.keys())})


def _target(server: UUID) -> Target:
    return Target("mcp_server", server)
