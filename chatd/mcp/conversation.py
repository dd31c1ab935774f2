"""The exchange of one call, in which the server may also speak: ask people, tell how it goes."""

import asyncio
import json
import math
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import TypeVar

from chatd.core.asking import Elicit, ElicitAnswer, Elicitation, LogLine, Progress
from chatd.core.tools import JsonObject
from chatd.mcp.errors import without
from chatd.mcp.exchange import Exchange
from chatd.mcp.listing import visible
from chatd.mcp.questions import Unaskable, question

CANCEL = ElicitAnswer("cancel")
DECLINE = ElicitAnswer("decline")

MAX_OPEN = 8
"""Questions of one call that may be open at the same time."""
MAX_ASKED = 100
"""Questions of one call: a server may take each back at once and ask the next."""
MAX_LOG = 2000
MAX_LOGGER = 128
MAX_PROGRESS = 500

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Conversation(Exchange):
    """What the callbacks raise ends the call, and its caller gets it.

    `elicit` runs in the caller's context and is cancelled when the call is over.
    """

    elicit: Elicit | None = None
    progress: Callable[[Progress], None] | None = None
    heard: Callable[[LogLine], None] | None = None
    _context: Context = field(default_factory=copy_context)
    _asked: int = 0

    async def ask(self, params: JsonObject) -> ElicitAnswer:
        """Never raises for what the server or the caller's own code does."""
        if self.elicit is None or self.over or self._asked >= MAX_ASKED:
            return CANCEL
        if len(self.clock.questions) >= MAX_OPEN:
            return CANCEL
        try:
            asked = question(params, self.secrets)
        except Unaskable:
            return DECLINE
        self._asked += 1
        put = asyncio.create_task(_put(self.elicit, asked), context=self._context)
        self.clock.stop_for(put)
        try:
            await asyncio.wait({put})
        finally:
            put.cancel()
        if put.cancelled() or self.over:
            return CANCEL
        error = put.exception()
        if error is None:
            return put.result()
        self._fail(error)
        return CANCEL

    async def report(self, progress: float, total: float | None, message: str | None) -> None:
        self.clock.hear()
        if self.progress is None or self.over or not math.isfinite(progress):
            return
        known = total if total is not None and math.isfinite(total) else None
        self._tell(self.progress, Progress(progress, known, self._shown(message, MAX_PROGRESS)))

    def log(self, level: str, logger: str | None, data: object) -> None:
        self.clock.hear()
        if self.heard is None or self.over:
            return
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
        line = LogLine(level, self._shown(logger, MAX_LOGGER), self._shown(text, MAX_LOG))
        self._tell(self.heard, line)

    def _tell(self, listener: Callable[[T], None], value: T) -> None:
        try:
            listener(value)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, Exception):
            self.error = self.error or error
        self.give_up()

    def _shown(self, text: str | None, limit: int) -> str:
        return visible(without(text or "", self.secrets), limit)


async def _put(elicit: Elicit, asked: Elicitation) -> ElicitAnswer:
    return await elicit(asked)
