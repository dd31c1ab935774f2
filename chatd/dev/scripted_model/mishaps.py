"""What goes wrong before an answer, and the only memory of the model: how often it did."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from chatd.dev.scripted_model.request import Request
from chatd.dev.scripted_model.script import Drop, Fail, Hang, Step

# Longer than any client waits before it tries again.
_FORGET_AFTER = 300.0


@dataclass
class _Count:
    failed: int
    forget_at: float


@dataclass(frozen=True)
class Course:
    """What becomes of one model call: silence, then a failure or (None) the answer."""

    silence: float
    failure: Fail | Drop | None


class Mishaps:
    """Counts failed attempts per conversation, so that a repeated request gets further.

    The key is what was said, the count ends with the attempt that gets its answer: the same
    conversation held again later fails again. Two that say the same at the same time share a
    count, unless the client tells them apart (`user`, `prompt_cache_key`, `metadata`).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: dict[bytes, _Count] = {}

    def course(self, request: Request, step: Step) -> Course:
        """What happens at this attempt. Only a step that can fail is remembered."""
        if not any(isinstance(mishap, Fail | Drop) for mishap in step.mishaps):
            return _course(step, 0)
        key = request.conversation()
        course = _course(step, self._failed(key))
        if course.failure is None:
            self._counts.pop(key, None)
        else:
            self._remember(key, course.failure)
        return course

    def _failed(self, key: bytes) -> int:
        for old in [old for old, count in self._counts.items() if count.forget_at < self._clock()]:
            del self._counts[old]
        return self._counts[key].failed if key in self._counts else 0

    def _remember(self, key: bytes, failure: Fail | Drop) -> None:
        wait = failure.retry_after or 0 if isinstance(failure, Fail) else 0
        count = self._counts.setdefault(key, _Count(0, 0.0))
        count.failed += 1
        count.forget_at = self._clock() + wait + _FORGET_AFTER


def _course(step: Step, failed: int) -> Course:
    silence = 0.0
    left: float = failed
    for mishap in step.mishaps:
        if isinstance(mishap, Hang):
            silence += mishap.seconds
        elif left < mishap.times:
            return Course(silence, mishap)
        else:
            left -= mishap.times
    return Course(silence, None)
