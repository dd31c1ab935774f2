"""Answering what a turn waits for: results of the client's own tools, approvals, questions."""

import asyncio
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from chatd.api.answers import CONFLICT, NOT_FOUND, OpenItem, json_answer
from chatd.api.auth import Signed
from chatd.api.fields import ChatId, Flag, says
from chatd.api.limits import JsonRoute
from chatd.api.parts import Parts, PartsDep
from chatd.core.chats import Actor
from chatd.core.errors import BadRequest, Conflict
from chatd.core.reasons import SENTENCES
from chatd.core.tools import JsonObject, OfferedTool
from chatd.mcp.forms import form_problem
from chatd.policy.tools import tool_refusal
from chatd.store.answering import get_item
from chatd.store.chat_servers import load_chat_servers, load_turn_situation

router = APIRouter(tags=["turns"], route_class=JsonRoute)

MAX_RESULTS = 128

ItemId = Annotated[UUID, Path(description="The open item's id."), says("Invalid item ID.")]


class ToolResultInput(BaseModel):
    """What the client's tool answered: any JSON."""

    tool_call_id: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    output: Any
    is_error: Flag = False

    def to_answer(self) -> JsonObject:
        output = self.output
        text = output if isinstance(output, str) else orjson.dumps(output).decode()
        return {"text": text, "is_error": self.is_error}


class ToolResultsBody(BaseModel):
    """The results of all open calls of the client's own tools, together."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"results": [{"tool_call_id": "call_1", "output": {"ok": True}}]}]
        }
    )

    results: Annotated[
        list[ToolResultInput],
        Field(min_length=1, max_length=MAX_RESULTS),
        says("At least one tool result is required."),
    ]

    def to_answers(self) -> dict[str, JsonObject]:
        """Raises `BadRequest` for a call that is answered twice."""
        answers = {result.tool_call_id: result.to_answer() for result in self.results}
        if len(answers) < len(self.results):
            raise BadRequest("Duplicate tool_call_id.", detail="Each call is answered once.")
        return answers


class ApprovalBody(BaseModel):
    """Whether the call may be made. The model reads the reason of a refusal."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"decision": "deny", "reason": "Wrong ticket."}]}
    )

    decision: Literal["approve", "deny"]
    reason: Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000)] = ""


class ElicitationBody(BaseModel):
    """The user's answer to a server's question; `content` goes with accept only."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"action": "accept", "content": {"name": "Ada"}}]}
    )

    action: Literal["accept", "decline", "cancel"]
    content: dict[str, Any] | None = None


class AuthBody(BaseModel):
    """Connecting answers by itself; this is for who does not want to."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"action": "skip"}]})

    action: Literal["skip"]


@router.post(
    "/chats/{chat}/tool-results",
    status_code=204,
    responses={**NOT_FOUND, **CONFLICT},
    summary="Answer calls of the client's own tools",
)
async def post_tool_results(
    chat: ChatId, body: ToolResultsBody, actor: Signed, parts: PartsDep
) -> Response:
    """All calls that are open, at once. Nobody answering within five minutes is an error result."""
    await parts.answers.tool_results(actor, chat, body.to_answers())
    return Response(status_code=204)


@router.post(
    "/chats/{chat}/approvals/{item}",
    response_model=OpenItem,
    responses={**NOT_FOUND, **CONFLICT},
    summary="Approve or deny a tool call",
)
async def post_approval(
    chat: ChatId, item: ItemId, body: ApprovalBody, actor: Signed, parts: PartsDep
) -> Response:
    """The same decision twice answers the same; another one is a 409, as is one that came too
    late. What policy no longer allows cannot be approved."""
    asked = await get_item(parts.db, actor, chat, item)
    if body.decision == "approve" and asked["kind"] == "approval" and asked["state"] == "open":
        await _check_policy(parts, actor, chat, item, asked)
    answer: JsonObject = {"decision": body.decision}
    if body.reason:
        answer["reason"] = body.reason
    await parts.answers.answer(actor, chat, item, "approval", answer)
    return json_answer(await get_item(parts.db, actor, chat, item))


@router.post(
    "/chats/{chat}/elicitations/{item}",
    response_model=OpenItem,
    responses={**NOT_FOUND, **CONFLICT},
    summary="Answer a server's question",
)
async def post_elicitation(
    chat: ChatId, item: ItemId, body: ElicitationBody, actor: Signed, parts: PartsDep
) -> Response:
    """A form's answer is checked against what the server asked for."""
    asked = await get_item(parts.db, actor, chat, item)
    answer: JsonObject = {"action": body.action}
    if body.action == "accept" and asked.get("mode") == "form":
        content: JsonObject = body.content or {}
        # A thread: a server's form may be made to take long.
        problem = await asyncio.to_thread(form_problem, asked.get("schema") or {}, content)
        if problem is not None:
            raise BadRequest("The answer does not fit the form.", detail=problem)
        answer["content"] = content
    await parts.answers.answer(actor, chat, item, "elicitation", answer)
    return json_answer(await get_item(parts.db, actor, chat, item))


@router.post(
    "/chats/{chat}/auth/{item}",
    response_model=OpenItem,
    responses={**NOT_FOUND, **CONFLICT},
    summary="Go on without connecting an account",
)
async def post_auth(
    chat: ChatId, item: ItemId, body: AuthBody, actor: Signed, parts: PartsDep
) -> Response:
    """The turn does without the server, as it would after ten minutes."""
    await parts.answers.answer(actor, chat, item, "auth", {"action": body.action})
    return json_answer(await get_item(parts.db, actor, chat, item))


async def _check_policy(
    parts: Parts, actor: Actor, chat_id: UUID, item_id: UUID, asked: Any
) -> None:
    """The worker asks again before the call leaves; here the user hears why it would not."""
    known = await load_chat_servers(parts.db, parts.keys, actor.user_id, chat_id)
    situation = await load_turn_situation(parts.db, item_id, known.situation)
    name = asked["original_name"]
    reason = tool_refusal(
        OfferedTool(name, name, "", {}, server_id=UUID(asked["server_id"])),
        {server.id: server for server in known.servers},
        situation,
    )
    if reason is not None:
        raise Conflict("Policy no longer allows this call.", detail=SENTENCES[reason])
