"""Which tools a chat has, and why it has no others: what the next turn would decide."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response

from chatd.api.answers import NOT_FOUND, ChatTools, json_answer
from chatd.api.auth import Signed
from chatd.api.fields import ChatId, says
from chatd.api.limits import JsonRoute
from chatd.api.parts import PartsDep
from chatd.core.accounts import connect_path, reason_of, sentence
from chatd.core.chats import Actor
from chatd.core.reasons import SENTENCES
from chatd.core.servers import McpServer, Principal, UserAuth, principal_of
from chatd.core.tools import OfferedTool
from chatd.explaining import Drop, explain
from chatd.policy.approvals import approval_required
from chatd.store.accounts import read_account
from chatd.store.chat_servers import load_chat_servers
from chatd.store.db import Database

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

    def principal(server: McpServer) -> Principal:
        return principal_of(
            server, user_id=actor.user_id, chat_id=chat, root_chat_id=known.root_chat_id
        )

    explained = await explain(
        parts.catalogue,
        known.servers,
        situation,
        principal,
        dynamic_tools=known.dynamic_tools,
    )
    servers = {server.id: server for server in known.servers}
    wanted = await _wanted(parts.db, explained.dropped, servers)
    return json_answer(
        {
            "plan_mode": situation.plan_mode,
            "tools": [shown_tool(tool, servers) for tool in explained.tools],
            "dropped": [
                shown | _account(drop, servers, wanted)
                for drop, shown in _visible(explained.dropped, actor)
            ],
        }
    )


def _visible(dropped: Sequence[Drop], actor: Actor) -> list[tuple[Drop, dict[str, Any]]]:
    """A member learns nothing of a server hidden from them, nor of what a server is and where."""
    if actor.role == "admin":
        return [(drop, shown_drop(drop)) for drop in dropped]
    return [(drop, _reason(drop)) for drop in dropped if not drop.hidden]


async def _wanted(
    db: Database, dropped: Sequence[Drop], servers: Mapping[UUID, McpServer]
) -> dict[UUID, tuple[str, ...]]:
    """The scopes that servers want before they list their tools."""
    found: dict[UUID, tuple[str, ...]] = {}
    for drop in dropped:
        server = servers.get(drop.dropped.server_id) if drop.dropped.server_id else None
        if server is None or drop.kind != "server" or drop.dropped.reason != "forbidden":
            continue
        if isinstance(server.auth, UserAuth):
            account = await read_account(db, server.auth.connection_id)
            if account is not None and account.wants_more:
                found[server.id] = account.missing_scopes
    return found


def _account(
    drop: Drop, servers: Mapping[UUID, McpServer], wanted: Mapping[UUID, Sequence[str]]
) -> dict[str, Any]:
    """What the one who asks can do about a server that wants an account of theirs."""
    server = servers.get(drop.dropped.server_id) if drop.dropped.server_id else None
    if server is None or not isinstance(server.auth, UserAuth):
        return {}
    auth, more = server.auth, {}
    if server.id in wanted:
        auth = auth.model_copy(update={"needs_reauth": "insufficient_scope"})
        more = {"reason": "auth_required", "wanted_scopes": list(wanted[server.id])}
    elif drop.dropped.reason != "auth_required":
        return {}
    return more | {
        "message": sentence(auth),
        "connect_url": connect_path(auth.type, server.id),
        "needs_reauth": reason_of(auth),
    }


def shown_drop(drop: Drop) -> dict[str, Any]:
    """As administrators see it."""
    return _reason(drop) | {"detail": drop.dropped.detail, "rule": drop.dropped.rule}


def _reason(drop: Drop) -> dict[str, Any]:
    dropped = drop.dropped
    return {
        "name": dropped.name,
        "kind": drop.kind,
        "server_id": str(dropped.server_id) if dropped.server_id else None,
        "reason": dropped.reason,
        "message": SENTENCES[dropped.reason],
        "detail": "",
    }


def shown_tool(tool: OfferedTool, servers: Mapping[UUID, McpServer]) -> dict[str, Any]:
    """A tool as the model is offered it."""
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
