"""A chat's newest plan: read, and approved."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from chatd.api.answers import (
    CONFLICT,
    NOT_FOUND,
    TOO_MANY,
    NewMessageAnswer,
    PlanAnswer,
    json_answer,
)
from chatd.api.attaching import with_files
from chatd.api.auth import Signed
from chatd.api.bodies import Content
from chatd.api.fields import ChatId, says
from chatd.api.limits import JsonRoute
from chatd.api.parts import PartsDep
from chatd.api.submitting import EVENTS, Accept, IdempotencyKey, submit, to_once
from chatd.core.chats import NewTurn
from chatd.core.times import rfc3339
from chatd.store.plans import newest_plan

router = APIRouter(tags=["turns"], route_class=JsonRoute)


class ApproveBody(BaseModel):
    """Which plan, and what else there is to say about it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{}, {"content": [{"type": "text", "text": "Begin with the tests."}]}]
        }
    )

    file_id: Annotated[UUID, says("Invalid file ID.")] | None = Field(
        default=None, description="The plan that was read: a 409 if there is a newer one."
    )
    content: Content | None = None

    def to_turn(self) -> NewTurn:
        return NewTurn([part.to_part() for part in self.content or ()])


@router.get(
    "/chats/{chat}/plan",
    response_model=PlanAnswer,
    responses=NOT_FOUND,
    summary="A chat's newest plan",
)
async def get_plan(chat: ChatId, actor: Signed, parts: PartsDep) -> Response:
    """404 also when none was proposed yet."""
    plan = await newest_plan(parts.db, actor, chat)
    return json_answer(
        {
            "file_id": str(plan.file_id),
            "name": plan.name,
            "content": plan.content,
            "created_at": rfc3339(plan.created_at),
            "approved_at": rfc3339(plan.approved_at),
        }
    )


@router.post(
    "/chats/{chat}/plan/approve",
    status_code=201,
    response_model=NewMessageAnswer,
    responses={201: EVENTS, **NOT_FOUND, **CONFLICT, **TOO_MANY},
    summary="Approve the newest plan",
)
async def approve_plan(
    request: Request,
    chat: ChatId,
    actor: Signed,
    parts: PartsDep,
    body: ApproveBody | None = None,
    key: IdempotencyKey = None,
    accept: Accept = None,
) -> Response:
    """A message says so and quotes the plan; plan mode is off from its turn on.

    Answered as a message is, also as the turn's event stream. 409 when there is no plan, a newer
    one than the one that is named, or one that was approved before.
    """
    body = body or ApproveBody()
    new = await with_files(parts, actor, body.to_turn())
    once = await to_once(request, key)
    return await submit(
        parts,
        actor,
        chat,
        lambda: parts.commands.approve_plan(actor, chat, body.file_id, new.content, once),
        accept=accept,
        content=new.content,
    )
