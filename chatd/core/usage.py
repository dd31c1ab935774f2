"""Model calls that somebody pays for, and what a user may spend on them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args
from uuid import UUID

from chatd.core.config import Period, UsageLimits
from chatd.core.messages import NO_USAGE, Usage
from chatd.core.models import Model, cost_micros

UsageKind = Literal["step", "lost", "title", "compaction"]
"""`step`: an answer that became a message. `lost`: one that did not: a worker died, a retry, a
message edited meanwhile."""

USAGE_KINDS: tuple[str, ...] = get_args(UsageKind)

BYTES_A_TOKEN = 4
"""For calls whose provider has not said."""

UNLIMITED = -1


@dataclass(frozen=True, slots=True)
class Spent:
    """One model call, as a line of the ledger. `cost_micros` None: the model has no prices."""

    owner_id: UUID
    chat_id: UUID
    kind: UsageKind
    usage: Usage
    model_config_id: UUID | None = None
    cost_micros: int | None = None
    turn_id: UUID | None = None
    estimated: bool = False


def estimated_usage(input_bytes: int, output_bytes: int) -> Usage:
    entered, answered = -(-input_bytes // BYTES_A_TOKEN), -(-output_bytes // BYTES_A_TOKEN)
    return {
        **NO_USAGE,
        "input_tokens": entered,
        "output_tokens": answered,
        "total_tokens": entered + answered,
    }


def price(usage: Usage, model: Model | None) -> int | None:
    """Millionths of a dollar; None without a model or its prices."""
    return cost_micros(usage, model.options.cost) if model is not None else None


@dataclass(frozen=True, slots=True)
class Window:
    """One period; `end` belongs to the next one."""

    start: datetime
    end: datetime


def window(period: Period, now: datetime) -> Window:
    """The day, ISO week (from Monday) or month around an instant, in UTC."""
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return Window(day, day + timedelta(days=1))
    if period == "week":
        monday = day - timedelta(days=day.weekday())
        return Window(monday, monday + timedelta(days=7))
    first = day.replace(day=1)
    return Window(first, (first + timedelta(days=31)).replace(day=1))


LimitSource = Literal["user", "default", "disabled"]


def limit_for(limits: UsageLimits, override: int | None) -> tuple[int | None, LimitSource]:
    """What one user may spend in a period (None: no limit), and who said so."""
    if not limits.enabled:
        return None, "disabled"
    if override is not None:
        return (None if override == UNLIMITED else override), "user"
    return limits.default_limit_micros, "default"


@dataclass(frozen=True, slots=True)
class Standing:
    """What a user has spent of what they may."""

    enabled: bool
    period: Period
    spent_micros: int
    limit_micros: int | None
    source: LimitSource
    resets_at: datetime

    @property
    def exceeded(self) -> bool:
        return self.limit_micros is not None and self.spent_micros >= self.limit_micros
