"""One turn, top to bottom: load, select tools, loop, commit, finish."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime

from chatd import logs, telemetry
from chatd.core.answers import Answer
from chatd.core.deltas import Delta
from chatd.core.errors import LeaseLost, TurnError, TurnFailed, turn_error
from chatd.core.messages import HistoryMessage
from chatd.core.models import Model
from chatd.core.tools import ToolResult
from chatd.core.turns import TurnStatus
from chatd.core.work import Claim, LoadedTurn, Notice
from chatd.llm.prompt import chat_messages
from chatd.llm.retry import complete_with_retries
from chatd.loop import (
    CallEnded,
    LoopEvent,
    ResultsReady,
    StepReady,
    StepStarted,
    Streamed,
    run_loop,
)
from chatd.turn.deps import Control, TurnDeps
from chatd.turn.record import Recorder
from chatd.turn.resume import resume
from chatd.turn.toolbox import Toolbox
from chatd.turn.watch import ModelWatch

WALL_TIME_S = 24 * 3600

log = logs.get("turn")


async def run_turn(deps: TurnDeps, claim: Claim, control: Control) -> str:
    """Run a claimed turn to its end, or until its worker says stop. Answers how it ended.

    Cancel the task after setting `control.stop`; what has to be written then is still written.
    """
    turn = _Turn(deps, claim, control)
    attributes = {"chat.id": str(claim.chat_id), "turn.id": str(claim.turn_id)}
    try:
        with (
            telemetry.span("turn", attributes, parent=claim.traceparent),
            telemetry.STAGE_SECONDS.labels("chat_turn").time(),
        ):
            telemetry.waited("queue_wait", claim.waited_s)
            return await turn.run()
    except asyncio.CancelledError:
        if control.stop is None:
            raise
        return await asyncio.shield(turn.stopped())
    except LeaseLost:
        return "lost"
    except TurnFailed as failed:
        return await turn.failed(failed.error)
    except TimeoutError:
        error = turn_error("time_limit", "The turn ran for longer than a turn may.")
        return await turn.failed(error)
    except Exception as error:
        log.exception("turn failed", error=type(error).__name__)
        return await turn.failed(turn_error("generic", "The turn failed unexpectedly."))


class _Turn:
    def __init__(self, deps: TurnDeps, claim: Claim, control: Control) -> None:
        self._deps = deps
        self._claim = claim
        self._control = control
        self._record = Recorder(deps, claim)
        self._answer = Answer()
        self._step = 0
        self._began = time.monotonic()
        self._results: dict[int, ToolResult] = {}
        self._toolbox: Toolbox | None = None

    async def run(self) -> str:
        self._record.started()
        loaded = await self._deps.loader.load(self._claim)
        left = WALL_TIME_S - (datetime.now(UTC) - loaded.started_at).total_seconds()
        async with asyncio.timeout(left):
            model = _usable_model(loaded)
            self._record.model = model
            toolbox = self._toolbox = Toolbox(self._deps, loaded, self._control)
            with telemetry.stage("mcp_connect"):
                await toolbox.open()
            self._record.notify(toolbox.notices)
            start = resume(loaded, toolbox.by_name)
            if start.open_step is not None:
                self._record.open = [
                    *start.open_step.open,
                    *(planned for planned, _ in start.open_step.answered),
                ]
            events = run_loop(
                start,
                complete=lambda history: self._complete(loaded, model, toolbox, history),
                call=toolbox.call,
                tools=lambda: toolbox.by_name,
            )
            async with aclosing(events):
                async for event in events:
                    await self._on(event)
        return await self._completed()

    async def _on(self, event: LoopEvent) -> None:
        match event:
            case Streamed(deltas):
                self._record.preview(deltas)
            case StepStarted(step, answer):
                self._step, self._answer = step, answer
                self._began = time.monotonic()
            case StepReady(step, answer, calls):
                if calls:
                    await self._record.step(answer, calls, step, self._runtime(), self._notices())
                    self._answer = Answer()
                    self._results = {}
            case CallEnded(planned, result, last):
                self._results[planned.position] = result
                if not last:
                    await self._record.result(planned, result)
            case ResultsReady(step, results):
                await self._record.results(step, results, self._notices())

    async def _complete(
        self,
        loaded: LoadedTurn,
        model: Model,
        toolbox: Toolbox,
        history: Sequence[HistoryMessage],
    ) -> AsyncGenerator[list[Delta]]:
        """One model call with the tools as policy has them now."""
        if await toolbox.refresh():
            self._record.notify(toolbox.notices)
        stream = complete_with_retries(
            self._deps.models.client(model),
            model,
            chat_messages([loaded.system_prompt], history),
            toolbox.tools,
            effort=loaded.reasoning_effort,
        )
        watch = ModelWatch(model, messages=len(history))
        try:
            async for deltas in stream:
                watch.saw(deltas)
                yield deltas
        finally:
            watch.ended()
            await stream.aclose()

    async def _completed(self) -> str:
        answer = self._answer
        notices = [*self._notices(), *_cut_short(answer)]
        if answer.reason == "content_filter" and not answer.parts():
            message = "The provider's content filter stopped the answer."
            raise TurnFailed(turn_error("content_filter", message))
        return await self._record.finish(
            TurnStatus.COMPLETED,
            answer=answer,
            step=self._step,
            runtime_ms=self._runtime(),
            notices=notices,
        )

    async def failed(self, error: TurnError) -> str:
        """Close what is open and end the turn with this error."""
        if self._answer.parts():
            self._record.withdraw()
        try:
            await self._record.close_calls(self._results)
            return await self._record.finish(
                TurnStatus.FAILED, error=error, notices=self._notices()
            )
        except LeaseLost:
            return "lost"

    async def stopped(self) -> str:
        """What the worker's reason to stop asks for."""
        try:
            if self._control.stop == "drain":
                await self._record.hand_back()
                return "handed_back"
            if self._control.stop == "interrupt":
                await self._record.close_calls(self._results)
                return await self._record.finish(
                    TurnStatus.INTERRUPTED,
                    answer=self._answer,
                    step=self._step,
                    runtime_ms=self._runtime(),
                    notices=self._notices(),
                )
        except LeaseLost:
            pass
        return "lost"

    def _runtime(self) -> int:
        return int((time.monotonic() - self._began) * 1000)

    def _notices(self) -> list[Notice]:
        """The notices that no commit has stored yet; the commit that gets them stores them."""
        if self._toolbox is None:
            return []
        notices, self._toolbox.notices = self._toolbox.notices, []
        return notices


def _usable_model(loaded: LoadedTurn) -> Model:
    if loaded.model is None:
        message = "This chat's model is no longer available; choose another one."
        raise TurnFailed(turn_error("provider_disabled", message))
    return loaded.model


def _cut_short(answer: Answer) -> list[Notice]:
    if answer.reason == "length":
        message = "The answer reached the model's output limit and is cut off."
        return [Notice(code="output_limit", server_id=None, message=message)]
    return []
