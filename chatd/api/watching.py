"""One reader of all chats of an owner."""

import orjson

from chatd.api.flow import Flow, Pace
from chatd.api.frames import plain_frame
from chatd.api.permits import Permit
from chatd.stream.watchers import Watcher, Watchers


class Watching:
    """A watcher's news as frames."""

    finished = False

    def __init__(self, watchers: Watchers, watcher: Watcher) -> None:
        self._watchers = watchers
        self._watcher = watcher

    @property
    def overrun(self) -> bool:
        return self._watcher.overrun

    @property
    def closing(self) -> bool:
        return self._watcher.closing

    async def next(self, wait_s: float) -> bytes:
        return b"".join(plain_frame(*letter) for letter in await self._watcher.wait(wait_s))

    def revoked(self) -> bytes:
        error = {"kind": "auth", "message": "This stream is no longer allowed.", "retryable": False}
        return plain_frame("chat_error", orjson.dumps({"type": "error", "error": error}))

    def nudge(self) -> None:
        self._watcher.nudge()

    async def close(self) -> None:
        self._watchers.leave(self._watcher)


async def watch(watchers: Watchers, permit: Permit, pace: Pace) -> Flow:
    """From its first frame on, every change is told; nothing of what was before."""
    return Flow(Watching(watchers, await watchers.watch(permit.user_id)), permit, b"", pace)
