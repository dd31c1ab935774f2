"""Watching a model call for metrics and traces."""

import time
from collections.abc import Sequence

from chatd import telemetry
from chatd.core.deltas import Delta, Retrying
from chatd.core.models import Model


class ModelWatch:
    """One model call, retries included."""

    def __init__(self, model: Model, *, messages: int) -> None:
        self._labels = (model.provider, model.name)
        self._began = time.perf_counter()
        self._first: float | None = None
        telemetry.labelled(telemetry.MESSAGE_COUNT, *self._labels).observe(messages)

    def saw(self, deltas: Sequence[Delta]) -> None:
        last = deltas[-1]
        if isinstance(last, Retrying):
            telemetry.waited("retry_backoff", last.delay_ms / 1000)
            telemetry.labelled(telemetry.STREAM_RETRIES, last.error["kind"], *self._labels).inc()
        elif self._first is None:
            self._first = time.perf_counter()
            seconds = self._first - self._began
            telemetry.labelled(telemetry.TTFT_SECONDS, *self._labels).observe(seconds)
            telemetry.labelled(telemetry.STAGE_SECONDS, "time_to_first_token").observe(seconds)

    def ended(self) -> None:
        telemetry.waited("stream", time.perf_counter() - self._began)
