"""The health report: everything asked at once, each for a short time, then judged."""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from fastapi import APIRouter, Response
from redis.exceptions import RedisError

from chatd import logs
from chatd.api.answers import FORBIDDEN, json_answer
from chatd.api.auth import Admin
from chatd.api.limits import JsonRoute
from chatd.api.parts import Parts, PartsDep
from chatd.core.errors import Unavailable
from chatd.core.health import Facts, HealthReport, ServerFacts
from chatd.core.judging import judge
from chatd.store import health
from chatd.store.keys import list_uses
from chatd.store.processes import list_processes

WITHIN_S = 2.0

T = TypeVar("T")

log = logs.get("health")

router = APIRouter(tags=["health"], route_class=JsonRoute)


@router.get(
    "/health/report", response_model=HealthReport, responses=FORBIDDEN, summary="How all parts are"
)
async def get_report(actor: Admin, parts: PartsDep) -> Response:
    """Every dependency, process, MCP server and model provider, with reasons.

    A part that does not answer within two seconds is an `error` in the report, not of the report.
    """
    report = judge(await _facts(parts))
    return json_answer(report.model_dump())


async def _facts(parts: Parts) -> Facts:
    db = parts.db
    async with asyncio.TaskGroup() as asked:
        database = asked.create_task(_known(health.read_database(db)))
        redis_ms = asked.create_task(_known(_redis_ms(parts)))
        processes = asked.create_task(_known(list_processes(db)))
        servers = asked.create_task(_known(_servers(parts)))
        queue = asked.create_task(_known(health.read_queue(db)))
        providers = asked.create_task(_known(health.read_providers(db, parts.keys)))
        key_ids = asked.create_task(_known(_key_ids(parts)))
    return Facts(
        checked_at=datetime.now(UTC),
        database=database.result(),
        redis_ms=redis_ms.result(),
        processes=processes.result(),
        servers=servers.result(),
        queue=queue.result(),
        providers=providers.result(),
        key_ids=key_ids.result(),
    )


async def _redis_ms(parts: Parts) -> float:
    redis: Any = parts.redis
    started = time.monotonic()
    await redis.ping()
    return round((time.monotonic() - started) * 1000, 1)


async def _servers(parts: Parts) -> list[ServerFacts]:
    found = await health.read_servers(parts.db, parts.keys)
    down = await parts.catalogue.down([(each.facts.id, each.version) for each in found])
    return [replace(each.facts, down=each.facts.id in down) for each in found]


async def _key_ids(parts: Parts) -> frozenset[str]:
    return frozenset(use.key_id for use in await list_uses(parts.db) if use.key_id is not None)


async def _known(answer: Awaitable[T]) -> T | None:
    """None when it is not known in time."""
    try:
        async with asyncio.timeout(WITHIN_S):
            return await answer
    except (Unavailable, RedisError, OSError, TimeoutError):
        return None
    except Exception as error:
        log.exception("a check failed", error=type(error).__name__)
        return None
