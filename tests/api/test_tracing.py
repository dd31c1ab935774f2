"""A request's trace goes on in its turn."""

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chatd import telemetry
from chatd.api.app import create_app
from chatd.settings import Settings
from chatd.store.db import Database
from tests.api.conftest import BASE, client, enter, text
from tests.seed import make_model

TRACE = "0af7651916cd43dd8448eb211c80319c"


async def test_the_turn_remembers_the_clients_trace(settings: Settings, db: Database) -> None:
    exporter = InMemorySpanExporter()
    stop = telemetry.start_tracing("chatd-test", exporter)
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        await make_model(db)
        person = await enter(app, db, "ada", "member")
        headers = {
            "Authorization": f"Bearer {person.token}",
            "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
        }
        async with person.http, client(app) as http:
            answer = await http.post(f"{BASE}/chats", json={"content": text("hi")}, headers=headers)
            assert answer.status_code == 201, answer.text
    stop()
    (row,) = await db.fetch("SELECT traceparent FROM turns")
    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    assert span.name == f"POST {BASE}/chats"
    assert row["traceparent"].startswith(f"00-{TRACE}-{span.context.span_id:016x}-")


async def test_without_an_exporter_there_is_no_trace(settings: Settings, db: Database) -> None:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        await make_model(db)
        person = await enter(app, db, "ada", "member")
        async with person.http:
            await person.post("/chats", {"content": text("hi")})
    (row,) = await db.fetch("SELECT traceparent FROM turns")
    assert row["traceparent"] is None


async def test_no_span_holds_what_comes_in_a_query(settings: Settings) -> None:
    exporter = InMemorySpanExporter()
    stop = telemetry.start_tracing("chatd-test", exporter)
    app = create_app(settings)
    async with app.router.lifespan_context(app), client(app) as http:
        server = "00000000-0000-7000-8000-000000000000"
        await http.get(f"{BASE}/mcp/servers/{server}/oauth2/callback?state=s3cret&code=s3cret")
    stop()
    spans = exporter.get_finished_spans()
    assert spans
    assert all("s3cret" not in span.to_json() for span in spans)
