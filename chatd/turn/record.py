"""Committing what a turn makes, then publishing it: never the other way round."""

import time
from collections.abc import Sequence
from typing import Any

from chatd import telemetry
from chatd.core.answers import Answer
from chatd.core.deltas import Delta, IntentDelta, ReasoningDelta, Retrying, TextDelta, ToolCallDelta
from chatd.core.errors import TurnError
from chatd.core.events import EventType
from chatd.core.messages import NewMessage, Part
from chatd.core.models import Model, cost_micros
from chatd.core.tools import JsonObject, ToolResult
from chatd.core.turns import TurnStatus
from chatd.core.work import Claim, Committed, Notice, PlannedCall
from chatd.loop import Parked, result_part
from chatd.store import items, work
from chatd.store.stopping import INTERRUPTED
from chatd.store.views import message_view
from chatd.stream.publisher import TurnFeed
from chatd.turn.deps import Control, TurnDeps
from chatd.turn.rows import annotated, outcome_of, status_event

Results = Sequence[tuple[PlannedCall, ToolResult]]
Events = list[tuple[EventType, dict[str, Any]]]


class Recorder:
    """One attempt's commits and events. Every method raises `LeaseLost` when it is not ours."""

    def __init__(self, deps: TurnDeps, claim: Claim, control: Control) -> None:
        self._deps = deps
        self._claim = claim
        self._control = control
        self.feed = TurnFeed(deps.publisher, claim)
        self._first_token: float | None = None
        self._journaled: set[int] = set()
        self._ids: dict[int, str] = {}
        self.model: Model | None = None
        self.open: list[PlannedCall] = []
        """Calls that are history and have no result there yet."""
        self.interrupted = False
        """A commit found that the user has stopped the turn."""

    def started(self) -> None:
        self.feed.committed(
            self._claim.version, self._claim.commits, [status_event(TurnStatus.RUNNING)]
        )

    # --- previews

    def preview(self, deltas: Sequence[Delta]) -> None:
        """Show what the model is saying."""
        for delta in deltas:
            match delta:
                case TextDelta(text):
                    self._mark_first_token()
                    self.feed.delta({"type": "text", "text": text})
                case ReasoningDelta(text):
                    self._mark_first_token()
                    self.feed.delta({"type": "reasoning", "text": text})
                case ToolCallDelta():
                    self._mark_first_token()
                    self.feed.delta(self._call_part(delta))
                case IntentDelta(index, intent):
                    self.feed.delta(self._intent_part(index, intent))
                case Retrying():
                    self._retrying(delta)
                case _:
                    pass

    def notify(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            self.feed.event("notice", dict(notice))

    def _call_part(self, delta: ToolCallDelta) -> JsonObject:
        if delta.id:
            self._ids[delta.index] = delta.id
        part: JsonObject = {
            "type": "tool-call",
            "tool_call_id": self._ids.get(delta.index, ""),
            "args_delta": delta.arguments,
        }
        if delta.name:
            part["tool_name"] = delta.name
        return part

    def _intent_part(self, index: int, intent: str) -> JsonObject:
        call_id = self._ids.get(index, "")
        return {"type": "tool-call", "tool_call_id": call_id, "args_delta": "", "intent": intent}

    def _retrying(self, delta: Retrying) -> None:
        self.feed.event("preview_reset", {})
        retry = {"attempt_number": delta.attempt, "delay_ms": delta.delay_ms, "error": delta.error}
        self.feed.event("retry", {"retry": retry})

    def _mark_first_token(self) -> None:
        if self._first_token is None:
            self._first_token = time.monotonic()

    def _first_token_ago(self) -> float | None:
        return None if self._first_token is None else time.monotonic() - self._first_token

    def withdraw(self) -> None:
        """What was shown of an answer will not be kept."""
        self.feed.event("preview_reset", {})

    # --- commits

    async def step(
        self,
        answer: Answer,
        calls: Sequence[PlannedCall],
        step: int,
        runtime_ms: int,
        notices: Sequence[Notice],
    ) -> None:
        """The assistant's message and the calls it makes, journaled as intended."""
        message = self._answer(annotated(answer.parts(), calls), answer, step, runtime_ms)
        with telemetry.stage("commit"):
            committed = await work.commit_step(
                self._deps.db, self._claim, [message], calls, notices, self._first_token_ago()
            )
        self._count_step()
        self.open = list(calls)
        self.interrupted = committed.status == TurnStatus.INTERRUPTING
        self._publish(committed.version, committed.commits, [message], committed.messages)

    async def result(self, planned: PlannedCall, result: ToolResult) -> None:
        """One result while others of its step are still out: journaled, and shown."""
        await work.record_result(self._deps.db, self._claim, outcome_of(planned, result))
        self._journaled.add(planned.position)
        self.feed.delta(result_part(planned, result), role="tool")

    async def results(self, step: int, results: Results, notices: Sequence[Notice] = ()) -> None:
        """All results of a step as tool messages."""
        messages = [
            NewMessage(
                role="tool",
                content=[result_part(planned, result)],
                step=step,
                position=planned.position,
            )
            for planned, result in results
        ]
        outcomes = [
            outcome_of(planned, result)
            for planned, result in results
            if planned.position not in self._journaled
        ]
        with telemetry.stage("commit"):
            committed = await work.commit_results(
                self._deps.db, self._claim, messages, outcomes, notices
            )
        self._journaled.clear()
        self.open = []
        self.interrupted = committed.status == TurnStatus.INTERRUPTING
        self._publish(committed.version, committed.commits, messages, committed.messages)

    async def park(self, parked: Parked, notices: Sequence[Notice]) -> str | None:
        """Give the turn back with what its calls wait for; None when the user has stopped it.

        Readers take what is asked from the rows.
        """
        outcomes = [
            outcome_of(planned, result)
            for planned, result in parked.results
            if planned.position not in self._journaled
        ]
        turn = await items.park_turn(
            self._deps.db, self._claim, parked.step, outcomes, parked.waiting, notices
        )
        if turn.status == TurnStatus.INTERRUPTING:
            self.interrupted = True
            return None
        self.feed.committed(turn.version, 0, [], ended=True)
        if any(item.kind == "child" for _, item in parked.waiting):
            self._deps.wakes.wake()  # a claim passes over the chats that were locked
        return turn.status

    async def close_calls(self, known: dict[int, ToolResult]) -> None:
        """Answer every open call: with its result if it came, else as interrupted."""
        if not self.open:
            return
        interrupted = ToolResult(INTERRUPTED, is_error=True, outcome="unknown")
        results = [
            (planned, known.get(planned.position, interrupted))
            for planned in sorted(self.open, key=lambda planned: planned.position)
        ]
        await self.results(self.open[0].step, results)

    async def finish(
        self,
        status: TurnStatus,
        *,
        answer: Answer | None = None,
        step: int = 0,
        runtime_ms: int = 0,
        error: TurnError | None = None,
        notices: Sequence[Notice] = (),
    ) -> str:
        """The turn's end, with the last answer if there is one. Answers the status it ended in."""
        parts = answer.parts(calls=False) if answer is not None else []
        keep = answer is not None and (parts or status is TurnStatus.COMPLETED)
        messages = [self._answer(parts, answer, step, runtime_ms)] if answer and keep else []
        if answer is not None and not keep and answer.parts():
            self.withdraw()
        with telemetry.stage("commit"):
            ended = await work.finish_turn(
                self._deps.db, self._claim, messages, status, error, notices,
                self._first_token_ago(),
            )  # fmt: skip
        self._control.more = ended.more or ended.promoted_id is not None
        if messages:
            self._count_step()
        if ended.promoted_id is not None:
            self.feed.committed(ended.version, self._claim.commits, [], ended=True)
            self._deps.wakes.wake()
            return ended.status
        failed = ended.status == TurnStatus.FAILED
        events: Events = [("error", {"error": error})] if failed else []
        events.append(status_event(TurnStatus(ended.status)))
        self._publish(ended.version, 0, messages, ended.messages, events, ended=True)
        return ended.status

    async def hand_back(self, notices: Sequence[Notice]) -> None:
        """For another worker. Readers withdraw what was shown and not committed."""
        version = await work.hand_back(self._deps.db, self._claim, notices)
        self.feed.committed(version, 0, [], ended=True)
        self._deps.wakes.wake()

    def _answer(self, parts: list[Part], answer: Answer, step: int, runtime_ms: int) -> NewMessage:
        model = self.model
        usage = answer.usage
        return NewMessage(
            role="assistant",
            content=parts,
            step=step,
            position=0,
            usage=usage,
            context_limit=model.context_limit if model else 0,
            cost_micros=cost_micros(usage, model.options.cost) if usage and model else None,
            runtime_ms=runtime_ms,
            provider_response_id=answer.response_id,
            model_config_id=model.config_id if model else None,
        )

    def _count_step(self) -> None:
        if self.model is not None:
            telemetry.labelled(telemetry.STEPS, self.model.provider, self.model.name).inc()

    def publish(
        self, committed: Committed, messages: Sequence[NewMessage], ids: Sequence[tuple[int, str]]
    ) -> None:
        """A commit that another part of the turn has made, with the messages users see."""
        self.interrupted = committed.status == TurnStatus.INTERRUPTING
        self._publish(committed.version, committed.commits, messages, ids)

    def _publish(
        self,
        version: int,
        commits: int,
        messages: Sequence[NewMessage],
        ids: Sequence[tuple[int, str]],
        more: Events | None = None,
        *,
        ended: bool = False,
    ) -> None:
        events: Events = [
            ("message", {"message": self._view(message, *row)})
            for message, row in zip(messages, ids, strict=True)
        ]
        self.feed.committed(
            version,
            commits,
            events + (more or []),
            message_ids=tuple(row[0] for row in ids),
            ended=ended,
        )

    def _view(self, message: NewMessage, message_id: int, created_at: str) -> Any:
        row = {
            "id": message_id,
            "chat_id": self._claim.chat_id,
            "turn_id": self._claim.turn_id,
            "created_by": None,
            "model_config_id": message.model_config_id,
            "created_at": created_at,
            "role": message.role,
            "content": message.content,
            "usage": message.usage,
            "context_limit": message.context_limit,
            "total_cost_micros": message.cost_micros,
        }
        return message_view(row)
