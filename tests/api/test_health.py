"""What load balancers, browsers and Prometheus see."""

import httpx2
import pytest
from fastapi import FastAPI
from prometheus_client import generate_latest
from pydantic import SecretStr

from chatd.api.app import create_app
from chatd.settings import Settings
from chatd.telemetry import REGISTRY
from tests.api.conftest import BASE, Person, client


async def test_all_is_well(anonymous: httpx2.AsyncClient) -> None:
    assert (await anonymous.get("/healthz")).json() == {"status": "ok", "checks": {}}
    ready = await anonymous.get("/readyz")
    assert (ready.status_code, ready.json()) == (
        200,
        {"status": "ok", "checks": {"database": "ok", "redis": "ok"}},
    )


async def test_a_draining_process_is_not_ready_but_answers(app: FastAPI, member: Person) -> None:
    app.state.drain.start()
    app.state.drain.start()
    ready = await member.http.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "draining")
    assert (await member.http.get("/healthz")).status_code == 200
    assert (await member.get("/chats")).status_code == 200


async def test_without_redis_we_are_degraded_but_ready(settings: Settings) -> None:
    away = settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:9/0")})
    app = create_app(away)
    async with app.router.lifespan_context(app), client(app) as http:
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()) == (
            200,
            {"status": "degraded", "checks": {"database": "ok", "redis": "failed"}},
        )


async def test_requests_are_counted_by_route_not_by_id(member: Person) -> None:
    await member.get("/chats/01a1fab5-c2cb-7173-874c-35bf875269c4")
    await member.http.get("/no/such/place")
    metrics = generate_latest(REGISTRY).decode()
    counted = 'chatd_http_requests_total{method="GET",route="/chats/{chat}",status="404"}'
    assert counted in metrics
    assert 'route="none",status="404"' in metrics
    assert "/no/such" not in metrics
    assert "01a1fab5-c2cb" not in metrics


@pytest.mark.parametrize("listed", [True, False])
async def test_browsers_from_listed_origins_only(settings: Settings, listed: bool) -> None:
    origins = ("https://chat.example",) if listed else ()
    app = create_app(settings.model_copy(update={"cors_origins": origins}))
    async with app.router.lifespan_context(app), client(app) as http:
        answer = await http.get(f"{BASE}/chats", headers={"Origin": "https://chat.example"})
        allowed = answer.headers.get("access-control-allow-origin")
        assert allowed == ("https://chat.example" if listed else None)
        assert "x-request-id" in answer.headers
        preflight = await http.options(
            f"{BASE}/chats",
            headers={
                "Origin": "https://evil.example",
                "Access-Control-Request-Method": "POST",
            },
        )
        assert "access-control-allow-origin" not in preflight.headers
