"""Whether the process lives, and whether it should be sent requests."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Literal

from fastapi import APIRouter, Response
from redis.exceptions import RedisError

from chatd.api.answers import Health, json_answer
from chatd.api.parts import PartsDep
from chatd.core.errors import Unavailable
from chatd.store.migrations import check_migrated

PROBE_TIMEOUT_S = 1.0

router = APIRouter(tags=["health"])


@router.get("/healthz", response_model=Health, summary="The process answers")
async def healthz() -> Response:
    return json_answer({"status": "ok", "checks": {}})


@router.get(
    "/readyz",
    response_model=Health,
    responses={503: {"model": Health, "description": "Do not send requests here."}},
    summary="Ready for requests",
)
async def readyz(parts: PartsDep) -> Response:
    """Without Redis we are `degraded` but ready: what is posted is committed and will run.

    Without the database, and while shutting down, the answer is 503.
    """
    redis: Any = parts.redis
    database_ok, redis_ok = await asyncio.gather(
        _probe(check_migrated(parts.db)), _probe(redis.ping())
    )
    status = _status(draining=parts.drain.started, database_ok=database_ok, redis_ok=redis_ok)
    checks = {"database": _word(database_ok), "redis": _word(redis_ok)}
    ready = status in ("ok", "degraded")
    return json_answer({"status": status, "checks": checks}, 200 if ready else 503)


def _status(
    *, draining: bool, database_ok: bool, redis_ok: bool
) -> Literal["ok", "degraded", "unavailable", "draining"]:
    if draining:
        return "draining"
    if not database_ok:
        return "unavailable"
    return "ok" if redis_ok else "degraded"


async def _probe(answer: Awaitable[object]) -> bool:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await answer
    except (Unavailable, RedisError, OSError, TimeoutError):
        return False
    return True


def _word(ok: bool) -> str:
    return "ok" if ok else "failed"
