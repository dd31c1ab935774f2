"""Metrics as one table, and traces that cost nothing until an exporter is configured."""

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TypeVar

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span as SdkSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import INVALID_SPAN, Span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    start_http_server,
)

Metric = TypeVar("Metric", Counter, Gauge, Histogram)

REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

_MODEL = ("provider", "model")
_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_BYTES = tuple(1024 * 4**power for power in range(9))
_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


def _counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
    return Counter(f"chatd_{name}", text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
    return Gauge(f"chatd_{name}", text, labels, registry=REGISTRY)


def _histogram(
    name: str, text: str, labels: tuple[str, ...] = (), *, buckets: tuple[float, ...] = _SECONDS
) -> Histogram:
    return Histogram(f"chatd_{name}", text, labels, buckets=buckets, registry=REGISTRY)


# Workers: turns and what they are made of.
CHATS = _gauge("chats", "Turns in hand, by state: running, or being stopped.", ("state",))
STEPS = _counter("steps_total", "Model calls that were committed as steps.", _MODEL)
STAGE_SECONDS = _histogram(
    "stage_duration_seconds",
    "Time per stage: chat_turn, queue_wait, acquisition, mcp_connect, stream, "
    "time_to_first_token, tool_call, commit, retry_backoff.",
    ("stage",),
)
TTFT_SECONDS = _histogram("ttft_seconds", "From the model call to its first token.", _MODEL)
MESSAGE_COUNT = _histogram("message_count", "Messages in a model call.", _MODEL, buckets=_COUNTS)
PROMPT_BYTES = _histogram("prompt_size_bytes", "Text in a model call.", _MODEL, buckets=_BYTES)
TOOL_RESULT_BYTES = _histogram(
    "tool_result_size_bytes", "Text of a tool result, before the cap.", buckets=_BYTES
)
TOOL_RESULTS_TRUNCATED = _counter("tool_result_truncated_total", "Tool results that were cut.")
TOOL_ERRORS = _counter("tool_errors_total", "Tool calls that answered with an error.")
STREAM_RETRIES = _counter(
    "stream_retries_total", "Model calls tried again, by error kind.", ("kind", *_MODEL)
)
COMPACTIONS = _counter(
    "compaction_total", "Histories summed up, by result: success, error, timeout.", ("result",)
)
LEASES_LOST = _counter("leases_lost_total", "Turns this worker lost to another or to a command.")
CONNECTION_LINES_DROPPED = _counter(
    "connection_log_dropped_total", "Lines of the connection log that could not be written."
)
TOKEN_REFRESHES = _counter(
    "token_refreshes_total",
    "Access tokens that were to be renewed, by outcome: renewed, unreachable, refused (and kept), "
    "failed (a defect of ours), or why the user has to connect again.",
    ("outcome",),
)
TOKEN_REFRESH_SECONDS = _histogram(
    "token_refresh_duration_seconds", "Until the authorization server had answered, or had not."
)

# The front door.
REQUESTS = _counter("http_requests_total", "Requests.", ("method", "route", "status"))
REQUEST_SECONDS = _histogram("http_request_duration_seconds", "Until the answer began.", ("route",))
FOLLOWERS = _gauge("stream_followers", "Open event streams.")
FOLLOWERS_DROPPED = _counter("stream_followers_dropped_total", "Streams whose reader was too slow.")
STREAM_BUFFER_BYTES = _gauge("stream_buffer_bytes", "Bytes that readers have not taken yet.")


def serve_metrics(host: str, port: int) -> Callable[[], None]:
    """Serve `/metrics` from a thread of its own; call the result to stop. Raises OSError."""
    server, thread = start_http_server(port, host, REGISTRY)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


@dataclass(slots=True)
class _Tracing:
    provider: TracerProvider | None = None
    tracer: trace.Tracer | None = None


_tracing = _Tracing()
_NO_SPAN = nullcontext(INVALID_SPAN)
_W3C = TraceContextTextMapPropagator()

Attributes = Mapping[str, str | int | float | bool]


class _WithoutQueries(SpanProcessor):
    """Codes, states and tickets come in queries."""

    def on_start(self, span: SdkSpan, parent_context: object = None) -> None:
        if "url.query" in (span.attributes or {}):
            span.set_attribute("url.query", "[redacted]")


def start_tracing(service: str, exporter: SpanExporter | None = None) -> Callable[[], None]:
    """Export spans as the standard `OTEL_…` variables say; call the result to flush and stop.

    For a process that has an exporter configured; all others leave it and pay nothing.
    """
    provider = TracerProvider(
        resource=Resource.create({"service.name": service}), shutdown_on_exit=False
    )
    provider.add_span_processor(_WithoutQueries())
    provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
    _tracing.provider, _tracing.tracer = provider, provider.get_tracer("chatd")

    def stop() -> None:
        _tracing.provider = _tracing.tracer = None
        provider.shutdown()

    return stop


def tracer_provider() -> TracerProvider | None:
    """What FastAPI makes its request spans with; None without tracing."""
    return _tracing.provider


def span(
    name: str, attributes: Attributes | None = None, *, parent: str | None = None
) -> AbstractContextManager[Span]:
    """A span as a block. Its parent is the W3C traceparent given, else the current span."""
    if _tracing.tracer is None:
        return _NO_SPAN
    context = _W3C.extract({"traceparent": parent}) if parent else None
    return _tracing.tracer.start_as_current_span(name, context, attributes=dict(attributes or {}))


@lru_cache(maxsize=4096)
def labelled(metric: Metric, *labels: str) -> Metric:
    """The metric's child of these labels; looking it up anew costs more than counting."""
    return metric.labels(*labels)


@contextmanager
def stage(name: str, attributes: Attributes | None = None) -> Generator[None]:
    """One of STAGE_SECONDS's stages, timed, and as a span."""
    began = time.perf_counter()
    try:
        with span(name, attributes):
            yield
    finally:
        labelled(STAGE_SECONDS, name).observe(time.perf_counter() - began)


def waited(name: str, seconds: float) -> None:
    """A stage that ended just now without having been ours to time."""
    labelled(STAGE_SECONDS, name).observe(max(seconds, 0))
    if _tracing.tracer is not None:
        now = datetime.now(UTC)
        past_span(name, now - timedelta(seconds=max(seconds, 0)), now)


def past_span(
    name: str, began: datetime, ended: datetime, attributes: Attributes | None = None
) -> None:
    """A span below the current one for something that is over, such as waiting in a queue."""
    if _tracing.tracer is None:
        return
    done = _tracing.tracer.start_span(
        name, attributes=dict(attributes or {}), start_time=_nanoseconds(began)
    )
    done.end(end_time=_nanoseconds(ended))


def traceparent() -> str | None:
    """The current span as a W3C traceparent, for a turn's row; None without tracing."""
    if _tracing.tracer is None:
        return None
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier.get("traceparent")


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1000
