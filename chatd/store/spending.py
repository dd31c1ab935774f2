"""What users may spend: looked at before a command starts a model call."""

import time
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd import logs
from chatd.core.config import UsageLimits
from chatd.core.errors import NotFound, UsageLimit
from chatd.core.times import rfc3339
from chatd.core.usage import Standing, limit_for, window
from chatd.store.config import read_config
from chatd.store.db import Database

REMEMBERED_S = 5.0
"""How long a process goes on with the limits it has read."""

OVERRIDE = "SELECT clock_timestamp() AS now, spend_limit_micros FROM users WHERE id = $1"

SPENT = """
SELECT coalesce(sum(cost_micros), 0)::bigint AS micros FROM usage_entries
WHERE owner_id = $1 AND at >= $2 AND at < $3
"""

READ_OVERRIDE = text("SELECT spend_limit_micros FROM users WHERE id = :user FOR NO KEY UPDATE")

SET_OVERRIDE = text("UPDATE users SET spend_limit_micros = :micros WHERE id = :user")

log = logs.get("spending")


class SpendLimits:
    """Remembers the deployment's limits for some seconds: while they are off, nothing is read."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._limits = UsageLimits()
        self._until = 0.0

    async def check(self, user_id: UUID) -> None:
        """Raises `UsageLimit`. A look-up that fails lets through: no outage of ours stops chats."""
        try:
            limits = await self._remembered()
            if not limits.enabled:
                return
            found = await standing(self._db, user_id, limits)
        except Exception as error:
            log.warning("the spend limit could not be checked", error=type(error).__name__)
            return
        if found.exceeded:
            raise _exceeded(found)

    def forget(self) -> None:
        """The limits have changed: read them again. Other processes do so within seconds."""
        self._until = 0.0

    async def _remembered(self) -> UsageLimits:
        now = time.monotonic()
        if now >= self._until:
            self._limits = (await read_config(self._db)).usage_limits
            self._until = now + REMEMBERED_S
        return self._limits


async def standing(db: Database, user_id: UUID, limits: UsageLimits | None = None) -> Standing:
    """What the user has spent in the current period of what they may."""
    if limits is None:
        limits = (await read_config(db)).usage_limits
    user = await db.fetch_one(OVERRIDE, user_id)
    if user is None:
        raise NotFound
    around = window(limits.period, user["now"])
    limit, source = limit_for(limits, user["spend_limit_micros"])
    spent = await db.fetch_one(SPENT, user_id, around.start, around.end)
    return Standing(
        enabled=limits.enabled,
        period=limits.period,
        spent_micros=spent["micros"] if spent is not None else 0,
        limit_micros=limit,
        source=source,
        resets_at=around.end,
    )


async def set_limit(session: AsyncSession, user_id: UUID, micros: int | None) -> int | None:
    """Answers the limit the user had. Raises `NotFound`."""
    connection = await session.connection()
    row: Any = (await connection.execute(READ_OVERRIDE, {"user": user_id})).one_or_none()
    if row is None:
        raise NotFound("User not found.")
    await connection.execute(SET_OVERRIDE, {"user": user_id, "micros": micros})
    return row.spend_limit_micros


def _exceeded(found: Standing) -> UsageLimit:
    resets_at = rfc3339(found.resets_at)
    return UsageLimit(
        "Chat usage limit exceeded.",
        detail=f"Your limit for this {found.period} is used up; it starts anew at {resets_at}.",
        extra={
            "spent_micros": found.spent_micros,
            "limit_micros": found.limit_micros,
            "resets_at": resets_at,
        },
    )
