"""Which authorization servers failed just now, and are left alone for a while."""

import time
from dataclasses import dataclass
from uuid import UUID

from chatd.credentials.timing import PAUSE_S, pause_s, share_of

MAX_REMEMBERED = 10_000


@dataclass(slots=True)
class _Failures:
    count: int
    until: float
    error: str


class Pauses:
    """By token, or by server where there is no token yet; of this process only."""

    def __init__(self, process: bytes, first_s: float = PAUSE_S) -> None:
        self._process = process
        self._first_s = first_s
        self._failures: dict[UUID, _Failures] = {}

    def failed(self, key: UUID, error: str) -> float:
        """For how many seconds it is left alone now."""
        if len(self._failures) >= MAX_REMEMBERED:
            self._failures.clear()
        before = self._failures.get(key)
        count = 1 if before is None else before.count + 1
        seconds = pause_s(count, share=share_of(key, self._process), first_s=self._first_s)
        self._failures[key] = _Failures(count, time.monotonic() + seconds, error)
        return seconds

    def worked(self, key: UUID) -> None:
        self._failures.pop(key, None)

    def error(self, key: UUID) -> str | None:
        """Why it is left alone; None: it is not."""
        failures = self._failures.get(key)
        if failures is None or time.monotonic() > failures.until:
            return None
        return failures.error
