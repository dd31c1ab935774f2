"""`chatd worker`: runs turns until it is told to stop."""

import sys
from contextlib import ExitStack

import typer
import uvloop

from chatd import logs, telemetry
from chatd.settings import Settings, load
from workers.main import serve


def worker(
    capacity: int | None = typer.Option(None, help="Turns at once; CHATD_WORKER_CAPACITY."),
    metrics_port: int | None = typer.Option(None, help="Port of /metrics, 0 for none."),
) -> None:
    """Run turns until SIGTERM, then finish what can be finished and hand back the rest."""
    changed = {"worker_capacity": capacity, "metrics_port": metrics_port}
    settings = load(Settings)
    settings = settings.model_copy(
        update={name: value for name, value in changed.items() if value is not None}
    )
    logs.configure(settings.log_format, settings.log_level)
    with ExitStack() as stack:
        if settings.metrics_port:
            stack.callback(telemetry.serve_metrics(settings.metrics_host, settings.metrics_port))
        if settings.otel_endpoint:
            stack.callback(telemetry.start_tracing("chatd-worker"))
        uvloop.run(serve(settings))
    sys.exit(0)
