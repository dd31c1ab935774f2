"""Compaction in a turn: when its history is summed up, what that writes, what the model reads on.

A failed compaction costs the turn nothing but its notice, unless the provider then refuses.
"""

import time
from collections.abc import Callable
from typing import Any, Literal
from uuid import uuid4

import orjson

from chatd import logs, telemetry
from chatd.core.answers import Answer
from chatd.core.config import thresholds
from chatd.core.errors import LeaseLost, TurnError, TurnFailed, turn_error
from chatd.core.messages import (
    HistoryMessage,
    NewMessage,
    Part,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from chatd.core.models import Model, cost_micros
from chatd.core.work import LoadedTurn, Notice
from chatd.llm.compaction import Calling, entered, has_answers, is_due, opening, summarise
from chatd.llm.errors import too_long
from chatd.store.compacting import CompactionRow, commit_compaction
from chatd.turn.deps import TurnDeps
from chatd.turn.ledger import Ledger
from chatd.turn.record import Recorder
from chatd.turn.settled import settled

TOOL = "chat_summarized"
MANUAL_STEP = 1
"""A turn that only compacts has no model call before which it does."""

Source = Literal["automatic", "manual"]

log = logs.get("compaction")


class Compactor:
    """One attempt's. It knows how full the window was at the last model call."""

    def __init__(
        self,
        deps: TurnDeps,
        turn: LoadedTurn,
        model: Model,
        record: Recorder,
        ledger: Ledger,
        tell: Callable[[Notice], None],
    ) -> None:
        self._deps = deps
        self._claim = turn.claim
        self._model = model
        self._record = record
        self._ledger = ledger
        self._tell = tell
        own = thresholds(turn.personal).get(str(model.config_id))
        self._threshold = model.compression_threshold if own is None else own
        self._task = _task(turn)
        self._entered = turn.entered_last
        summed_up = _begins_with_summary(turn)
        self._since_summary = turn.entered_first if summed_up else None
        self._fresh = summed_up and turn.entered_last is None
        """No model call has read the new history yet."""
        self._done = any(m.get("compressed") and m["step"] is not None for m in turn.history)
        """This turn has summed up its history already."""

    async def before_call(self, history: list[HistoryMessage], step: int, calling: Calling) -> None:
        """Sum up if the last call filled the window so far; `history` is then the new one."""
        limit = self._model.context_limit
        due = is_due(self._entered, self._since_summary, limit=limit, threshold=self._threshold)
        if due and has_answers(history):
            await self._try(history, step, calling, refused=False)

    async def after_refusal(
        self, error: TurnError, history: list[HistoryMessage], step: int, calling: Calling
    ) -> bool:
        """Whether the history was too long, and is short enough now to be sent again."""
        if self._done or not too_long(error) or not has_answers(history):
            return False
        return await self._try(history, step, calling, refused=True)

    async def manually(self, history: list[HistoryMessage], calling: Calling) -> None:
        """All that a turn of kind `compact` does. Raises `TurnFailed`."""
        if self._done:
            return
        if not has_answers(history):
            self._tell(_notice("nothing_to_compact", "There is nothing to sum up yet."))
            return
        await self._compact(history, MANUAL_STEP, calling, "manual", refused=False)

    def saw(self, usage: Usage | None) -> None:
        """A model call's answer is whole. Raises `TurnFailed` when summing up has not helped."""
        if usage is None:
            return
        self._entered = entered(usage)
        if self._fresh:
            self._fresh = False
            self._since_summary = self._entered
            if self._entered >= self._model.context_limit:
                raise TurnFailed(
                    turn_error(
                        "config",
                        "The conversation fills the model's context window even after it was"
                        " summed up: shorten the message or the instructions, or choose a model"
                        " with a larger window.",
                    )
                )

    async def _try(
        self, history: list[HistoryMessage], step: int, calling: Calling, *, refused: bool
    ) -> bool:
        try:
            await self._compact(history, step, calling, "automatic", refused=refused)
        except TurnFailed as failed:
            log.warning("compaction failed", error=failed.error["kind"], reason=str(failed))
            why = f"The conversation could not be summed up: {failed}"
            self._tell(_notice("compaction_failed", why))
            self._since_summary = self._entered
            return False
        return True

    async def _compact(
        self,
        history: list[HistoryMessage],
        step: int,
        calling: Calling,
        source: Source,
        *,
        refused: bool,
    ) -> None:
        self._record.notify([_notice("compacting", "The conversation is being summed up.")])
        began = time.monotonic()
        # What nobody has answered yet is repeated behind the summary, and no part of it.
        past = history[:-1] if history[-1]["role"] == "user" else history
        try:
            answer = await summarise(calling, past, refused=refused)
        except TurnFailed as failed:
            late = failed.error["kind"] == "timeout"
            telemetry.labelled(telemetry.COMPACTIONS, "timeout" if late else "error").inc()
            raise
        runtime_ms = int((time.monotonic() - began) * 1000)
        rows = self._rows(answer, step, source, runtime_ms)
        await settled(self._commit(rows, answer))
        telemetry.labelled(telemetry.COMPACTIONS, "success").inc()
        history[:] = [
            HistoryMessage(role=row.message.role, content=row.message.content)
            for row in rows
            if row.visibility == "model"
        ]
        self._entered = self._since_summary = None
        self._fresh = self._done = True

    async def _commit(self, rows: list[CompactionRow], answer: Answer) -> None:
        try:
            with telemetry.stage("commit"):
                committed = await commit_compaction(self._deps.db, self._claim, rows)
        except LeaseLost:
            self._ledger.lost(answer)
            raise
        self._ledger.summed_up(answer)
        shown = [place for place, row in enumerate(rows) if row.visibility == "user"]
        self._record.publish(
            committed,
            [rows[place].message for place in shown],
            [committed.messages[place] for place in shown],
        )

    def _rows(
        self, answer: Answer, step: int, source: Source, runtime_ms: int
    ) -> list[CompactionRow]:
        """The summary for the model, a call and its result for the user, the task once more."""
        summary = "".join(answer.text).strip()
        model, usage = self._model, answer.usage
        summed_up = opening(summary, task_follows=self._task is not None)
        call, result = self._shown(summary, source)
        rows = [
            CompactionRow(NewMessage("user", summed_up, step, -4), "model"),
            CompactionRow(
                NewMessage(
                    "assistant",
                    [call],
                    step,
                    -3,
                    usage=usage,
                    context_limit=model.context_limit,
                    cost_micros=cost_micros(usage, model.options.cost) if usage else None,
                    runtime_ms=runtime_ms,
                    provider_response_id=answer.response_id,
                    model_config_id=model.config_id,
                ),
                "user",
            ),
            CompactionRow(NewMessage("tool", [result], step, -2), "user"),
        ]
        if self._task is not None:
            again = NewMessage("user", self._task, step, -1)
            rows.append(CompactionRow(again, "model", compressed=False))
        return rows

    def _shown(self, summary: str, source: Source) -> tuple[ToolCallPart, ToolResultPart]:
        call_id = f"{TOOL}_{uuid4()}"
        asked = {"source": source, "threshold_percent": self._threshold}
        used, limit = self._entered or 0, self._model.context_limit
        figures = {
            "usage_percent": round(100 * used / limit, 1),
            "context_tokens": used,
            "context_limit_tokens": limit,
        }
        call = ToolCallPart(
            type="tool-call", tool_call_id=call_id, tool_name=TOOL, args=_json(asked)
        )
        result = ToolResultPart(
            type="tool-result",
            tool_call_id=call_id,
            tool_name=TOOL,
            result=_json({"summary": summary, **asked, **figures}),
            is_error=False,
        )
        return call, result


def _begins_with_summary(turn: LoadedTurn) -> bool:
    """The boundary of a cleared history is compressed too, and says nothing."""
    first = turn.history[0] if turn.history else None
    return first is not None and first.get("compressed", False) and bool(first["content"])


def _task(turn: LoadedTurn) -> list[Part] | None:
    """The message the turn answers, also when an earlier compaction has repeated it."""
    if turn.kind == "compact":
        return None
    own = [m for m in turn.history if m["step"] is not None and m["role"] == "user"]
    return own[-1]["content"] if own else None


def _notice(code: str, message: str) -> Notice:
    return Notice(code=code, server_id=None, message=message)


def _json(value: dict[str, Any]) -> str:
    return orjson.dumps(value).decode()
