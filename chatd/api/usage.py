"""Usage: what model calls cost, by chat, by oneself, by everybody; and what users may spend."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field, StrictInt

from chatd import audit
from chatd.api.admin import AdminBody
from chatd.api.answers import FORBIDDEN, NOT_FOUND, TokenUsage, json_answer
from chatd.api.auth import Admin, Signed, by
from chatd.api.fields import MAX_INT, ChatId, Limit, says
from chatd.api.limits import JsonRoute
from chatd.api.parts import PartsDep
from chatd.audit import Target
from chatd.core.config import MAX_LIMIT_MICROS, Period
from chatd.core.errors import BadRequest
from chatd.core.times import rfc3339
from chatd.core.usage import LimitSource, UsageKind
from chatd.store import usage
from chatd.store.spending import set_limit, standing

router = APIRouter(tags=["usage"], route_class=JsonRoute)

DEFAULT_DAYS = 30
MAX_DAYS = 366
_FIRST, _LAST = date(2000, 1, 1), date(2999, 12, 31)

UserId = Annotated[UUID, Path(description="The user's id."), says("Invalid user ID.")]
StartDate = Annotated[
    date | None, Query(description="The first day, in UTC. Absent: 29 days before `end_date`.")
]
EndDate = Annotated[date | None, Query(description="The last day, in UTC. Absent: today.")]


class Sums(TokenUsage):
    """Model calls, added up. `total_cost_micros` is that of the priced ones."""

    priced: int = Field(description="Calls of models with prices.")
    unpriced: int = Field(description="Calls of models without.")
    estimated: int = Field(description="Calls whose tokens the provider has not told.")


class KindSums(Sums):
    kind: UsageKind


class ModelSums(Sums):
    model_config_id: UUID | None
    model: str | None


class ChatUsage(Sums):
    chat_id: UUID
    by_kind: list[KindSums]
    by_model: list[ModelSums]


class DaySums(Sums):
    date: date


class ChatSums(Sums):
    chat_id: UUID
    title: str | None = Field(description="Null: the chat is deleted.")


class OwnUsage(Sums):
    start_date: date
    end_date: date
    by_kind: list[KindSums]
    by_model: list[ModelSums]
    by_day: list[DaySums] = Field(description="Days on which something was used.")
    by_chat: list[ChatSums] = Field(description="The 20 that cost most.")


class UserSums(Sums):
    user_id: UUID
    username: str
    name: str
    spend_limit_micros: int | None


class UsersUsage(BaseModel):
    start_date: date
    end_date: date
    users: list[UserSums]
    count: int = Field(description="How many users there are, not only on this page.")


class Limits(BaseModel):
    """What you have spent of what you may. Sending is refused when nothing is left."""

    enabled: bool
    period: Period
    spent_micros: int
    limit_micros: int | None = Field(description="Null: no limit.")
    source: LimitSource
    resets_at: datetime


class UserLimitBody(AdminBody):
    """Null or absent: the deployment's limit. -1: none."""

    spend_limit_micros: (
        Annotated[StrictInt, Field(ge=0, le=MAX_LIMIT_MICROS)] | Literal[-1] | None
    ) = None


class UserLimit(BaseModel):
    user_id: UUID
    spend_limit_micros: int | None


@router.get(
    "/chats/{chat}/usage", response_model=ChatUsage, responses=NOT_FOUND, summary="Usage of a chat"
)
async def get_chat_usage(chat: ChatId, actor: Signed, parts: PartsDep) -> Response:
    """Every model call that was paid for, also those whose answer was lost."""
    return json_answer(await usage.chat_usage(parts.db, actor.user_id, chat))


@router.get("/usage", response_model=OwnUsage, summary="Your usage")
async def get_own_usage(
    actor: Signed, parts: PartsDep, start_date: StartDate = None, end_date: EndDate = None
) -> Response:
    first, last = _days(start_date, end_date)
    found = await usage.user_usage(parts.db, actor.user_id, *_instants(first, last))
    return json_answer({"start_date": first, "end_date": last, **found})


@router.get(
    "/usage/users", response_model=UsersUsage, responses=FORBIDDEN, summary="Everybody's usage"
)
async def list_users_usage(
    actor: Admin,
    parts: PartsDep,
    start_date: StartDate = None,
    end_date: EndDate = None,
    username: Annotated[str, Query(max_length=64, description="Part of the name.")] = "",
    limit: Limit = 10,
    offset: Annotated[int, Query(ge=0, le=MAX_INT)] = 0,
) -> Response:
    """Who spent most first."""
    if "\0" in username:
        raise BadRequest("Invalid username parameter.")
    first, last = _days(start_date, end_date)
    found = await usage.users_usage(
        parts.db, *_instants(first, last), username=username, limit=limit, offset=offset
    )
    return json_answer({"start_date": first, "end_date": last, **found})


@router.get("/usage/limits", response_model=Limits, summary="What you may spend")
async def get_limits(actor: Signed, parts: PartsDep) -> Response:
    found = await standing(parts.db, actor.user_id)
    return json_answer(
        {
            "enabled": found.enabled,
            "period": found.period,
            "spent_micros": found.spent_micros,
            "limit_micros": found.limit_micros,
            "source": found.source,
            "resets_at": rfc3339(found.resets_at),
        }
    )


@router.put(
    "/usage/limits/users/{user}",
    response_model=UserLimit,
    responses={**FORBIDDEN, **NOT_FOUND},
    summary="Set what a user may spend",
)
async def put_user_limit(
    request: Request, user: UserId, body: UserLimitBody, actor: Admin, parts: PartsDep
) -> Response:
    """It counts at once, while the deployment's usage limits are enabled."""
    limit = body.spend_limit_micros
    async with parts.db.transaction() as session:
        before = await set_limit(session, user, limit)
        audit.record(
            session,
            by(request, actor),
            "update",
            Target("user", user),
            before={"spend_limit_micros": before},
            after={"spend_limit_micros": limit},
        )
    return json_answer({"user_id": str(user), "spend_limit_micros": limit})


def _days(first: date | None, last: date | None) -> tuple[date, date]:
    """Raises `BadRequest`."""
    last = last or datetime.now(UTC).date()
    if not _FIRST <= last <= _LAST:
        raise BadRequest("end_date must be between 2000 and 2999.")
    first = first or last - timedelta(days=DEFAULT_DAYS - 1)
    if first > last:
        raise BadRequest("end_date must not be before start_date.")
    if last - first >= timedelta(days=MAX_DAYS):
        raise BadRequest(f"At most {MAX_DAYS} days can be asked for.")
    return first, last


def _instants(first: date, last: date) -> tuple[datetime, datetime]:
    """From the first day's beginning until before the end of the last one."""
    start, end = (datetime.combine(day, time(), UTC) for day in (first, last))
    return start, end + timedelta(days=1)
