"""Operating the fleet: everybody's turns, without what is said in them, and claims."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from chatd import audit
from chatd.api.admin import AdminBody
from chatd.api.answers import CONFLICT, FORBIDDEN, NOT_FOUND, json_answer
from chatd.api.auth import Admin, by
from chatd.api.fields import Flag, Limit, ShortText, TurnId
from chatd.api.limits import JsonRoute
from chatd.api.parts import PartsDep
from chatd.audit import Target
from chatd.core.turns import TurnStatus
from chatd.queue import MAX_WAKES
from chatd.store import operating
from chatd.store.operating import Wanted
from chatd.store.policy_state import pause_claims, read_state

router = APIRouter(tags=["operating"], route_class=JsonRoute)

CLAIMS = "/chats/config/claims"


class AnyTurn(BaseModel):
    """A turn as operators see it."""

    id: UUID
    chat_id: UUID
    owner_id: UUID
    kind: Literal["message", "compact"]
    status: TurnStatus
    attempt: int
    worker_id: str | None = Field(description="Who has it in hand, or had it last.")
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    age_s: float = Field(description="Since it was sent, until its end.")
    model_config_id: UUID | None
    provider_id: UUID | None
    provider: str | None = Field(description="The model provider's name.")


class AnyTurns(BaseModel):
    turns: list[AnyTurn] = Field(description="Newest first.")


class CancelBody(AdminBody):
    reason: ShortText = Field(default="", description="For the audit log.")


class ClaimsBody(AdminBody):
    """While paused, workers finish what they have in hand and take nothing new."""

    paused: Flag


@router.get("/turns", response_model=AnyTurns, responses=FORBIDDEN, summary="List any turns")
async def list_turns(
    actor: Admin,
    parts: PartsDep,
    status: Annotated[TurnStatus | None, Query(description="Only these.")] = None,
    owner: Annotated[UUID | None, Query(description="Only this user's.")] = None,
    worker: Annotated[str | None, Query(max_length=200, description="Only this worker's.")] = None,
    before: Annotated[UUID | None, Query(description="Older than this turn.")] = None,
    limit: Limit = 50,
) -> Response:
    """Everybody's, to see what the fleet does. What is said in them is not told."""
    wanted = Wanted(status, owner, worker, before)
    return json_answer({"turns": await operating.list_turns(parts.db, wanted, limit)})


@router.post(
    "/turns/{turn}/cancel",
    response_model=AnyTurn,
    responses={**FORBIDDEN, **NOT_FOUND, **CONFLICT},
    summary="End any turn",
)
async def cancel_turn(
    request: Request, turn: TurnId, actor: Admin, parts: PartsDep, body: CancelBody | None = None
) -> Response:
    """As its owner's interrupt: what it has said is kept, and the chat's queue goes on."""
    try:
        async with parts.db.transaction() as session:
            done = await operating.cancel_turn(await session.connection(), turn)
            before = {"status": done.before}
            after = {
                "status": done.after,
                "owner_id": str(done.owner_id),
                "reason": body.reason if body else "",
            }
            target = Target("turn", turn)
            audit.record(session, by(request, actor), "cancel", target, before=before, after=after)
    finally:
        parts.wakes.wake()  # a claim passes over a chat that was locked
    parts.commands.tell(done.owner_id, done.changed)
    return json_answer(await operating.get_turn(parts.db, turn))


@router.get(CLAIMS, response_model=ClaimsBody, responses=FORBIDDEN, summary="Whether turns start")
async def get_claims(actor: Admin, parts: PartsDep) -> Response:
    return json_answer({"paused": (await read_state(parts.db)).claims_paused})


@router.put(
    CLAIMS, response_model=ClaimsBody, responses=FORBIDDEN, summary="Pause or resume all turns"
)
async def put_claims(request: Request, body: ClaimsBody, actor: Admin, parts: PartsDep) -> Response:
    """What is running goes on; messages are accepted and wait."""
    async with parts.db.transaction() as session:
        paused = await pause_claims(session, body.paused)
        target = Target("deployment_setting", "claims")
        audit.record(
            session,
            by(request, actor),
            "update",
            target,
            before={"paused": paused},
            after=body.model_dump(),
        )
    if not body.paused:
        parts.wakes.wake(MAX_WAKES)
    return json_answer(body.model_dump())
