"""What a server asks of the user and tells while one of its tools runs."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

from chatd.core.asking import ElicitAnswer, Elicitation, InputRequired, LogLine, Progress
from chatd.core.errors import Unavailable
from chatd.core.items import ELICITATION_S, Item, NewItem, Waits
from chatd.core.tools import JsonObject
from chatd.core.work import Claim, PlannedCall
from chatd.store.ids import new_id
from chatd.store.items import expire_item, open_item, read_answer
from chatd.store.work import patiently
from chatd.stream.publisher import TurnFeed
from chatd.turn.deps import TurnDeps
from chatd.turn.settled import settled

LOOK_S = 0.5
"""How often an open call looks for its answer."""

TELL_EVERY_S = 0.1
MAX_LINES = 100
"""Of one call's log; what comes faster or later is not told."""


class Asking:
    """One call that its server may talk about. `tell` publishes an event without a row."""

    def __init__(self, deps: TurnDeps, claim: Claim, planned: PlannedCall, feed: TurnFeed) -> None:
        self._deps = deps
        self._claim = claim
        self._planned = planned
        self._feed = feed
        self._told_at = 0.0
        self._lines = 0

    async def elicit(self, question: Elicitation) -> ElicitAnswer:
        """Ask the user while the call stays open. Raises `LeaseLost`."""
        item_id, item = new_id(), replace(_item(self._planned, question), memory=None)
        try:
            opened = open_item(self._deps.db, self._claim, item_id, self._planned, item)
            self._tell(await settled(opened))
            while True:
                await asyncio.sleep(LOOK_S)
                try:
                    state, answer = await read_answer(self._deps.db, item_id)
                except Unavailable:
                    continue
                if state != "open":
                    return _answered(answer)
        except asyncio.CancelledError:
            await settled(self._take_back(item_id))
            raise

    async def _take_back(self, item_id: UUID) -> None:
        """Nobody waits for the answer; it may be that the question was never put."""
        chat = self._claim.chat_id
        version = await patiently(
            lambda: expire_item(self._deps.db, item_id, chat, state="cancelled")
        )
        if version is not None:
            self._tell(version)

    def _tell(self, version: int) -> None:
        self._deps.publisher.announce(self._claim.chat_id, version, owner_id=self._claim.owner_id)

    def progress(self, progress: Progress) -> None:
        """Shown as it comes, but not faster than anybody can read."""
        if self._too_soon():
            return
        self._feed.delta(
            {
                "type": "tool-result",
                "tool_call_id": self._planned.call.id,
                "tool_name": self._planned.call.name,
                "progress": {
                    "progress": progress.progress,
                    "total": progress.total,
                    "message": progress.message,
                },
            },
            role="tool",
        )

    def heard(self, line: LogLine) -> None:
        """A server's log message, as a notice that is not kept."""
        if self._lines >= MAX_LINES or self._too_soon():
            return
        self._lines += 1
        tool = self._planned.tool
        server_id = str(tool.server_id) if tool is not None and tool.server_id else None
        notice = {
            "code": "server_log",
            "server_id": server_id,
            "message": line.text,
            "level": line.level,
            "logger": line.logger,
            "tool_call_id": self._planned.call.id,
        }
        self._feed.event("notice", notice)

    def _too_soon(self) -> bool:
        now = time.monotonic()
        if now - self._told_at < TELL_EVERY_S:
            return True
        self._told_at = now
        return False


def waits_for(planned: PlannedCall, required: InputRequired, round_: int) -> Waits:
    """One item a question; the call goes on when all are answered."""
    return Waits(
        tuple(
            replace(
                _item(planned, Elicitation.of(request)),
                memory={"key": key, "state": required.state, "round": round_},
            )
            for key, request in required.requests.items()
        )
    )


def answers_of(items: list[Item]) -> tuple[int, dict[str, JsonObject] | None, str | None]:
    """The newest round of questions: its number, the answers by key, the server's state."""
    asked = [cast(Mapping[str, Any], item.memory) for item in items if item.memory]
    if not asked:
        return 0, None, None
    round_ = asked[-1]["round"]
    responses = {
        item.memory["key"]: _answered(item.answer).response()
        for item in items
        if item.memory and item.memory["round"] == round_
    }
    return round_, responses, asked[-1]["state"]


def _item(planned: PlannedCall, question: Elicitation) -> NewItem:
    tool = planned.tool
    data: JsonObject = {
        "tool_name": planned.call.name,
        "server_id": str(tool.server_id) if tool is not None and tool.server_id else None,
        "mode": question.mode,
        "message": question.message,
        "schema": question.schema,
        "url": question.url,
    }
    return NewItem("elicitation", data, ELICITATION_S)


def _answered(answer: JsonObject | None) -> ElicitAnswer:
    """Nobody answering in time is a cancellation."""
    if answer is None:
        return ElicitAnswer("cancel")
    return ElicitAnswer(answer["action"], answer.get("content"))
