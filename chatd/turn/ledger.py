"""Model calls of a turn that no message tells of: somebody pays for them all the same."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from chatd import logs
from chatd.core.answers import Answer
from chatd.core.errors import Unavailable
from chatd.core.models import Model
from chatd.core.tools import OfferedTool
from chatd.core.usage import Spent, UsageKind, estimated_usage, price
from chatd.core.work import Claim
from chatd.llm.request import encode
from chatd.store.db import Database
from chatd.store.usage import is_recorded, record_usage

WRITE_S = 2.0
"""It is done when the turn is over, and must not hold up the next one."""

log = logs.get("ledger")


class Ledger:
    """One attempt's. Nothing is measured or written unless an answer is lost."""

    def __init__(self, db: Database, claim: Claim) -> None:
        self._db = db
        self._claim = claim
        self._began = time.monotonic()
        self._model: Model | None = None
        self._request: tuple[Sequence[dict[str, Any]], Sequence[OfferedTool]] = ((), ())
        self._lines: list[Spent] = []

    def asked(
        self, model: Model, messages: Sequence[dict[str, Any]], tools: Sequence[OfferedTool]
    ) -> None:
        """A model call begins."""
        self._model = model
        self._request = (messages, tools)

    def lost(self, answer: Answer) -> None:
        """What was streamed of an answer that no message will hold, if anything was."""
        if answer.usage is not None or answer.parts():
            self._add("lost", answer)

    def kept(self, answer: Answer, *, whole: bool) -> None:
        """A commit has made it a message, `whole` or as far as it can stand unfinished.

        Its line is there then, unless the provider had not told its usage.
        """
        if not whole and not answer.parts(calls=False):
            self.lost(answer)
        elif answer.usage is None and answer.parts():
            self._add("step", answer)

    def summed_up(self, answer: Answer) -> None:
        """A commit has made it the summary of a history; its line is there then as above."""
        if answer.usage is None:
            self._add("compaction", answer)

    async def has(self, answer: Answer, step: int) -> bool:
        """Whether the commit at which the turn was lost has landed after all, with this answer."""
        if answer.usage is None:
            return False
        try:
            return await is_recorded(self._db, self._claim.turn_id, step)
        except Unavailable:
            return False

    async def write(self, *, ours: bool) -> None:
        """Once, at the end, as well as it goes.

        `ours` is false when the turn was taken away: if by a sweeper, the call is counted already.
        """
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        since = None if ours else time.monotonic() - self._began
        try:
            async with asyncio.timeout(WRITE_S):
                await record_usage(self._db, lines, unless_lost_since_s=since)
        except Exception as error:
            log.warning("lost model calls are not accounted", error=type(error).__name__)

    def _add(self, kind: UsageKind, answer: Answer) -> None:
        claim, model = self._claim, self._model
        usage = answer.usage or estimated_usage(self._asked_bytes(), _bytes(answer))
        self._lines.append(
            Spent(
                owner_id=claim.owner_id,
                chat_id=claim.chat_id,
                turn_id=claim.turn_id,
                kind=kind,
                usage=usage,
                model_config_id=model.config_id if model is not None else None,
                cost_micros=price(usage, model),
                estimated=answer.usage is None,
            )
        )

    def _asked_bytes(self) -> int:
        messages, tools = self._request
        offered = [[tool.name, tool.description, tool.parameters] for tool in tools]
        return len(encode({"messages": messages, "tools": offered}))


def _bytes(answer: Answer) -> int:
    pieces = [*answer.text, *answer.reasoning]
    for _, name, arguments in answer.calls:
        pieces += [name, *arguments]
    return sum(len(piece.encode()) for piece in pieces)
