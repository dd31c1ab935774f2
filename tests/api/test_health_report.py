"""The health report: what is wrong is named, and what is away costs only its own section."""

from typing import Any
from uuid import UUID

import httpx2
from fastapi import FastAPI
from pydantic import SecretStr

from chatd.api.app import create_app
from chatd.core.chats import Actor
from chatd.core.health import HealthReport, PartHealth
from chatd.dev.postgres import Postgres
from chatd.settings import Settings
from chatd.store import processes
from chatd.store.db import Database
from tests.api.conftest import BASE, Person, enter
from tests.seed import Seed, make_model, make_server
from tests.waiting import until

KEYED: dict[str, Any] = {
    "auth_type": "api_key",
    "api_key_header": "X-Key",
    "api_key_value": SecretStr("canary"),
}


async def report(person: Person) -> HealthReport:
    answer = await person.get("/health/report")
    assert answer.status_code == 200, answer.text
    return HealthReport.model_validate(answer.json())


def codes(part: PartHealth) -> list[str]:
    return [reason.code for reason in part.reasons]


async def worker(db: Database, name: str = "w", **more: Any) -> None:
    values: dict[str, Any] = {"capacity": 1, "running": 0, "key_ids": ["k1", "test"], **more}
    (api,) = [each for each in await processes.list_processes(db) if each.kind == "api"]
    await processes.beat(db, name, "worker", api.version, **values)


async def beating(db: Database) -> None:
    """The front door has told that it lives."""
    await until(lambda: processes.list_processes(db))


async def connected(db: Database, server_id: UUID, outcome: str, ago_s: int, **more: Any) -> None:
    values = {"error_code": "", "tools": None, **more}
    await db.fetch(
        """INSERT INTO connection_log (at, server_id, server_slug, process, outcome, error_code,
            duration_ms, tool_count)
        VALUES (clock_timestamp() - make_interval(secs => $2), $1, 'x', 'w', $3, $4, 1, $5)""",
        server_id,
        ago_s,
        outcome,
        values["error_code"],
        values["tools"],
    )


async def test_members_may_not_read_it(member: Person, anonymous: httpx2.AsyncClient) -> None:
    assert (await member.get("/health/report")).status_code == 403
    assert (await anonymous.get(f"{BASE}/health/report")).status_code == 401


async def test_without_a_worker_and_without_anything_else_the_lists_are_empty(
    admin: Person, db: Database
) -> None:
    await beating(db)
    answer = await admin.get("/health/report")
    said = answer.json()
    assert said["status"] == "error"
    assert said["workers"] == {
        "status": "error",
        "reasons": [{"code": "no_worker", "message": "No worker process is alive."}],
        "items": [],
    }
    for section in ("agents", "mcp_servers", "providers"):
        assert said[section] == {"status": "healthy", "reasons": [], "items": []}
    assert said["queue"]["pending"] == 0
    assert said["database"]["status"] == said["redis"]["status"] == "healthy"
    assert said["database"]["latency_ms"] > 0
    (api,) = said["apis"]["items"]
    assert (api["status"], api["reasons"]) == ("healthy", [])


async def test_all_is_well_with_a_worker(admin: Person, db: Database) -> None:
    await beating(db)
    await worker(db)
    assert (await report(admin)).status == "healthy"


async def test_workers_that_are_lost_gone_or_full(admin: Person, db: Database) -> None:
    await beating(db)
    for name in ("full", "gone", "lost"):
        await worker(db, name, running=1)
    await processes.leave(db, "gone")
    await db.fetch(
        "UPDATE processes SET beat_at = beat_at - interval '16 seconds' WHERE id = 'lost'"
    )
    found = (await report(admin)).workers
    assert found.status == "error"
    assert {item.id: codes(item) for item in found.items} == {
        "full": [],
        "gone": ["left"],
        "lost": ["lost"],
    }


async def test_turns_that_wait_are_counted_and_full_workers_named(
    admin: Person, db: Database
) -> None:
    await beating(db)
    await Seed(db, Actor(admin.user.id, "admin"), await make_model(db)).chat()
    await db.fetch("UPDATE turns SET pending_at = pending_at - interval '11 seconds'")
    await worker(db, running=1)
    found = await report(admin)
    assert codes(found.workers) == ["all_full"]
    assert (found.queue.pending, found.queue.running, found.queue.parked) == (1, 0, 0)
    assert found.queue.oldest_pending_s is not None
    assert found.queue.oldest_pending_s > 10
    await db.fetch("UPDATE policy_state SET claims_paused = true")
    assert codes((await report(admin)).queue) == ["claims_paused"]


async def test_servers_are_as_their_newest_attempt(admin: Person, db: Database) -> None:
    ids = {slug: await make_server(db, slug) for slug in ("bad", "good", "unused")}
    await make_server(db, "off", enabled=False)
    await connected(db, ids["bad"], "connected", 60, tools=3)
    await connected(db, ids["bad"], "timeout", 30, error_code="connect")
    await connected(db, ids["bad"], "disconnected", 10)
    await connected(db, ids["good"], "refused", 60)
    await connected(db, ids["good"], "connected", 30)
    section = (await report(admin)).mcp_servers
    found = {item.slug: item for item in section.items}
    assert section.status == "error"
    assert list(found) == ["bad", "good", "unused"]
    assert (codes(found["bad"]), found["bad"].last_error) == (["timeout"], "connect")
    assert found["bad"].last_connected_at is not None
    assert found["bad"].tools == 3
    assert (codes(found["good"]), found["good"].last_error) == ([], None)
    assert codes(found["unused"]) == ["not_used_yet"]


async def test_an_open_breaker_is_told(admin: Person, app: FastAPI, db: Database) -> None:
    server_id = await make_server(db)
    name = f"chatd:mcp:down:{server_id}:1"
    await app.state.parts.redis.set(name, b"1", ex=60)
    (server,) = (await report(admin)).mcp_servers.items
    assert codes(server) == ["unreachable"]
    await app.state.parts.redis.delete(name)


async def test_secrets_that_cannot_be_read_are_named_and_not_shown(
    admin: Person, db: Database
) -> None:
    """`tests.seed` encrypts with a key that this process lacks."""
    await beating(db)
    await worker(db)
    await make_server(db, **KEYED)
    await admin.post(
        "/chats/providers", {"provider": "openai", "display_name": "x", "api_key": "sk-canary"}
    )
    await db.fetch("UPDATE model_providers SET api_key_key_id = 'gone'")
    answer = await admin.get("/health/report")
    assert "canary" not in answer.text
    found = HealthReport.model_validate(answer.json())
    (server,) = found.mcp_servers.items
    (provider,) = found.providers.items
    assert codes(server) == codes(provider) == ["unreadable_secret"]
    assert "'test'" in server.reasons[0].message
    (api,), (one,) = found.apis.items, found.workers.items
    assert codes(api) == codes(one) == ["missing_key"]
    assert "gone, test" in api.reasons[0].message


async def test_without_redis_there_is_a_report(settings: Settings, db: Database) -> None:
    away = settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:9/0")})
    app = create_app(away)
    async with app.router.lifespan_context(app):
        admin = await enter(app, db, "ada", "admin")
        await make_server(db)
        found = await report(admin)
        assert codes(found.redis) == ["unreachable"]
        assert found.redis.latency_ms is None
        assert found.database.status == "healthy"
        assert codes(found.mcp_servers.items[0]) == ["not_used_yet"]
        await admin.http.aclose()


async def test_a_section_that_cannot_be_read_costs_only_itself(admin: Person, db: Database) -> None:
    await make_model(db)
    await db.fetch("ALTER TABLE connection_log RENAME TO elsewhere")
    found = await report(admin)
    assert codes(found.mcp_servers) == ["unknown"]
    assert found.mcp_servers.items == []
    assert [item.status for item in found.providers.items] == ["healthy"]


async def test_without_the_database_nobody_can_be_known(admin: Person, postgres: Postgres) -> None:
    postgres.kill()
    try:
        assert (await admin.get("/health/report")).status_code == 503
    finally:
        await postgres.restart()


async def test_a_front_door_says_goodbye_when_it_drains(
    app: FastAPI, admin: Person, db: Database
) -> None:
    await beating(db)
    await worker(db)
    app.state.drain.start()

    async def left() -> bool:
        return codes((await report(admin)).apis) == ["no_api"]

    await until(left)
    (api,) = (await report(admin)).apis.items
    assert codes(api) == ["left"]
