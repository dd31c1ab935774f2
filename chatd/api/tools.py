"""Which tools a chat has, and why it has no others: what the next turn would decide."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response

from chatd.api.answers import NOT_FOUND, ChatTools, json_answer
from chatd.api.auth import Signed
from chatd.api.fields import ChatId, says
from chatd.api.limits import JsonRoute
from chatd.api.parts import Parts, PartsDep
from chatd.catalogue import Listing, Skipped
from chatd.core.chats import Actor
from chatd.core.reasons import SENTENCES
from chatd.core.servers import McpServer, principal_of
from chatd.core.situation import Situation
from chatd.core.tools import Dropped, OfferedTool
from chatd.policy.approvals import approval_required
from chatd.policy.builtins import select_builtins, select_dynamic
from chatd.policy.offer import Offer, offer
from chatd.policy.servers import select_servers
from chatd.store.chat_servers import ChatServers, load_chat_servers
from chatd.tools import BUILTINS

router = APIRouter(tags=["chats"], route_class=JsonRoute)

PlanQuery = Annotated[
    Literal["", "plan", "true", "false"] | None,
    Query(description="As if plan mode were on (`plan`) or off (empty). Absent: as it is."),
    says("Invalid plan_mode value."),
]


@router.get(
    "/chats/{chat}/tools", response_model=ChatTools, responses=NOT_FOUND, summary="A chat's tools"
)
async def list_tools(
    chat: ChatId, actor: Signed, parts: PartsDep, plan_mode: PlanQuery = None
) -> Response:
    """Asks the servers whose tools are not known yet, for at most ten seconds together."""
    known = await load_chat_servers(parts.db, parts.keys, actor.user_id, chat)
    situation = known.situation
    if plan_mode is not None:
        situation = replace(situation, plan_mode=plan_mode in ("plan", "true"))
    selection = select_servers(known.servers, situation)
    outcomes = await _lists(parts, known, selection.kept, actor, chat)
    offered, refused = _offer(known, situation, selection.kept, outcomes)
    dropped = [_server(drop) for drop in selection.dropped]
    for server, outcome in zip(selection.kept, outcomes, strict=True):
        dropped += _from_outcome(server, outcome)
    dropped += [_tool(drop) for drop in (*refused, *offered.dropped)]
    servers = {server.id: server for server in known.servers}
    return json_answer(
        {
            "plan_mode": situation.plan_mode,
            "tools": [_shown(tool, servers) for tool in offered.tools],
            "dropped": _visible(dropped, known, actor),
        }
    )


async def _lists(
    parts: Parts, known: ChatServers, kept: Sequence[McpServer], actor: Actor, chat_id: UUID
) -> Sequence[Listing | Skipped]:
    return await parts.catalogue.lists(
        [
            (
                server,
                principal_of(
                    server,
                    user_id=actor.user_id,
                    chat_id=chat_id,
                    root_chat_id=known.root_chat_id,
                ),
            )
            for server in kept
        ]
    )


def _offer(
    known: ChatServers,
    situation: Situation,
    kept: Sequence[McpServer],
    outcomes: Sequence[Listing | Skipped],
) -> tuple[Offer, list[Dropped]]:
    """As a turn makes it: our own tools, the servers', the client's."""
    listed = [
        (server, outcome.tools)
        for server, outcome in zip(kept, outcomes, strict=True)
        if isinstance(outcome, Listing)
    ]
    builtin, refused = select_builtins(BUILTINS, situation)
    dynamic = select_dynamic(known.dynamic_tools, situation)
    offered = offer(listed, plan_mode=situation.plan_mode, builtin=builtin, dynamic=dynamic)
    return offered, refused


def _from_outcome(server: McpServer, outcome: Listing | Skipped) -> list[dict[str, Any]]:
    if isinstance(outcome, Skipped):
        return [_server(Dropped(server.slug, outcome.reason, server.id, outcome.detail))]
    return [_tool(drop) for drop in outcome.quarantined]


def _server(drop: Dropped) -> dict[str, Any]:
    return _reason(drop, "server")


def _tool(drop: Dropped) -> dict[str, Any]:
    return _reason(drop, "tool")


def _reason(drop: Dropped, kind: str) -> dict[str, Any]:
    return {
        "name": drop.name,
        "kind": kind,
        "server_id": str(drop.server_id) if drop.server_id else None,
        "reason": drop.reason,
        "message": SENTENCES[drop.reason],
        "detail": drop.detail,
    }


def _visible(
    dropped: list[dict[str, Any]], known: ChatServers, actor: Actor
) -> list[dict[str, Any]]:
    """A member learns nothing of disabled servers, nor of what a server is and where."""
    if actor.role == "admin":
        return dropped
    hidden = {str(server.id) for server in known.servers if not server.enabled}
    return [drop | {"detail": ""} for drop in dropped if drop["server_id"] not in hidden]


def _shown(tool: OfferedTool, servers: dict[UUID, McpServer]) -> dict[str, Any]:
    server = servers.get(tool.server_id) if tool.server_id else None
    return {
        "name": tool.name,
        "original_name": tool.original_name,
        "description": tool.description,
        "kind": tool.kind,
        "server_id": str(tool.server_id) if tool.server_id else None,
        "server": server.slug if server is not None else None,
        "requires_approval": server is not None and approval_required(tool, server),
    }
