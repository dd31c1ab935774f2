"""Metrics on a port of their own, and traces that cross from the request to the worker."""

import re
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chatd import telemetry
from chatd.dev.ports import free_port


async def test_metrics_are_served_until_stopped() -> None:
    port = free_port()
    stop = telemetry.serve_metrics("127.0.0.1", port)
    telemetry.STEPS.labels("openai", "m").inc()
    async with httpx2.AsyncClient(trust_env=False) as http:
        shown = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
        stop()
        with pytest.raises(httpx2.ConnectError):
            await http.get(f"http://127.0.0.1:{port}/metrics")
    assert 'chatd_steps_total{model="m",provider="openai"}' in shown
    for name in ("chats", "stage_duration_seconds", "ttft_seconds", "tool_errors_total"):
        assert f"# TYPE chatd_{name} " in shown
    assert "process_cpu_seconds_total" in shown


def test_without_an_exporter_a_span_is_nothing() -> None:
    with telemetry.span("turn", {"a": 1}) as span:
        assert not span.is_recording()
        assert telemetry.traceparent() is None
        telemetry.past_span("queue_wait", datetime.now(UTC), datetime.now(UTC))
    assert telemetry.tracer_provider() is None


def test_a_workers_spans_join_the_requests_trace() -> None:
    exporter = InMemorySpanExporter()
    stop = telemetry.start_tracing("chatd-test", exporter)
    now = datetime.now(UTC)
    with telemetry.span("request"):
        parent = telemetry.traceparent()
    assert parent is not None
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[13]", parent)
    with telemetry.span("turn", {"chat": "c"}, parent=parent):
        telemetry.past_span("queue_wait", now - timedelta(seconds=2), now)
        with telemetry.span("tool"):
            pass
    stop()
    assert telemetry.traceparent() is None
    spans = {span.name: span for span in exporter.get_finished_spans()}
    request, turn = spans["request"].context, spans["turn"]
    assert request is not None
    assert turn.context is not None
    assert turn.parent is not None
    assert (turn.context.trace_id, turn.parent.span_id) == (request.trace_id, request.span_id)
    for name in ("queue_wait", "tool"):
        below = spans[name].parent
        assert below is not None
        assert below.span_id == turn.context.span_id
    waited = spans["queue_wait"]
    assert waited.start_time is not None
    assert waited.end_time is not None
    assert waited.end_time - waited.start_time == 2_000_000_000
