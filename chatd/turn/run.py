"""One turn, top to bottom: load, select tools, loop, commit, finish."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing

from chatd import logs, telemetry
from chatd.core.answers import Answer
from chatd.core.errors import LeaseLost, TurnError, TurnFailed, Unavailable, turn_error
from chatd.core.models import Model
from chatd.core.tools import ToolResult
from chatd.core.turns import TurnStatus
from chatd.core.work import Claim, LoadedTurn, Notice, PlannedCall
from chatd.loop import (
    CallEnded,
    LoopEvent,
    Parked,
    ResultsReady,
    Start,
    StepReady,
    StepStarted,
    Streamed,
    ends_turn,
    run_loop,
)
from chatd.store.work import owned
from chatd.turn.agents import inform_parent
from chatd.turn.calls import Calls
from chatd.turn.connecting import asked_for, may_wait
from chatd.turn.deps import Control, TurnDeps
from chatd.turn.ledger import Ledger
from chatd.turn.model_calls import ModelCalls
from chatd.turn.record import Recorder
from chatd.turn.resume import resume
from chatd.turn.settled import settled
from chatd.turn.toolbox import Toolbox

WALL_TIME_S = 24 * 3600

log = logs.get("turn")


async def run_turn(deps: TurnDeps, claim: Claim, control: Control) -> str:
    """Run a claimed turn to its end, or until its worker says stop. Answers how it ended.

    Cancel the task after setting `control.stop`; what has to be written then is still written.
    """
    turn = _Turn(deps, claim, control)
    try:
        ended = await _run(turn, claim)
    except asyncio.CancelledError:
        if control.stop is None:
            raise
        ended = await asyncio.shield(turn.stopped())
    try:
        await settled(turn.wind_up(ended))
    except asyncio.CancelledError:
        if control.stop is None:
            raise
    return ended


async def _run(turn: "_Turn", claim: Claim) -> str:
    attributes = {"chat.id": str(claim.chat_id), "turn.id": str(claim.turn_id)}
    try:
        with (
            telemetry.span("turn", attributes, parent=claim.traceparent),
            telemetry.labelled(telemetry.STAGE_SECONDS, "chat_turn").time(),
        ):
            telemetry.waited("queue_wait", claim.waited_s)
            return await turn.run()
    except LeaseLost:
        return "lost"
    except _Interrupted:
        return await settled(turn.interrupted())
    except TurnFailed as failed:
        return await settled(turn.failed(failed.error))
    except Exception as error:
        log.exception("turn failed", error=type(error).__name__)
        generic = turn_error("generic", "The turn failed unexpectedly.")
        return await settled(turn.failed(generic))


class _Interrupted(Exception):
    """A commit found that the user has stopped the turn; the renewal had not said so yet."""


class _Turn:
    def __init__(self, deps: TurnDeps, claim: Claim, control: Control) -> None:
        self._deps = deps
        self._claim = claim
        self._control = control
        self._record = Recorder(deps, claim, control)
        self._ledger = Ledger(deps.db, claim)
        self._answer = Answer()
        self._step = 0
        self._began = time.monotonic()
        self._results: dict[int, ToolResult] = {}
        self._toolbox: Toolbox | None = None
        self._ended: str | None = None
        self._is_child = False
        self._stopped_after = False
        """A tool has ended the turn, or it only compacts, or waits: there is no answer to keep."""

    async def run(self) -> str:
        self._record.started()
        loaded = await settled(self._load())
        self._is_child = loaded.parent_chat_id is not None
        if self._deps.titles is not None:
            self._deps.titles.begin(loaded)
        limit = asyncio.timeout(WALL_TIME_S - loaded.ran_s)
        try:
            await self._steps(loaded, limit)
        except TimeoutError:
            if not limit.expired():
                raise
            message = "The turn ran for longer than a turn may."
            raise TurnFailed(turn_error("time_limit", message)) from None
        return self._ended or await self._completed()

    async def _steps(self, loaded: LoadedTurn, limit: asyncio.Timeout) -> None:
        """The answer of the last step is then still to be committed."""
        async with limit:
            model = _usable_model(loaded)
            self._record.model = model
            toolbox = self._toolbox = Toolbox(self._deps, loaded, self._control)
            with telemetry.stage("mcp_connect"):
                unconnected = await toolbox.open(waits=may_wait(loaded))
            if unconnected:
                self._stopped_after = True
                await settled(self._park(asked_for(unconnected)))
                return
            self._record.notify(toolbox.notices)
            start = resume(loaded, toolbox.by_name)
            self._stopped_after = start.over
            calls = ModelCalls(
                self._deps, loaded, model, toolbox, self._record, self._ledger, self._still_mine
            )
            if loaded.kind == "compact":
                self._stopped_after = True
                await calls.compact(start.history)
                return
            events = run_loop(
                start,
                complete=lambda history: calls.complete(history, self._step),
                call=Calls(self._deps, loaded, toolbox, self._record.feed).call,
                tools=lambda: toolbox.by_name,
            )
            async with aclosing(events):
                async for event in events:
                    await self._on(event)
                    if self._record.interrupted:
                        raise _Interrupted

    async def _load(self) -> LoadedTurn:
        """With what an earlier attempt left open, before anything can fail or stop the turn."""
        loaded = await self._deps.loader.load(self._claim)
        self._take_up(resume(loaded, {}))
        return loaded

    def _take_up(self, start: Start) -> None:
        if start.open_step is not None:
            answered = start.open_step.answered
            self._record.open = [*start.open_step.open, *(planned for planned, _ in answered)]
            self._results = {planned.position: result for planned, result in answered}

    async def _on(self, event: LoopEvent) -> None:
        match event:
            case Streamed(deltas):
                self._record.preview(deltas)
            case StepStarted(step, answer):
                self._ledger.lost(self._answer)
                self._step, self._answer = step, answer
                self._began = time.monotonic()
            case StepReady(step, answer, calls):
                if calls:
                    await settled(self._keep_step(step, answer, calls))
            case CallEnded() | ResultsReady() | Parked():
                await self._on_results(event)

    async def _on_results(self, event: CallEnded | ResultsReady | Parked) -> None:
        match event:
            case CallEnded(planned, result, last):
                self._results[planned.position] = result
                if not last:
                    await settled(self._record.result(planned, result))
            case ResultsReady(step, results):
                await settled(self._record.results(step, results, self._notices()))
                self._stopped_after = ends_turn(event)
            case Parked():
                await settled(self._park(event))

    async def _park(self, parked: Parked) -> None:
        """Give the turn back until what it waits for is answered."""
        self._ended = await self._record.park(parked, self._notices())

    async def _keep_step(self, step: int, answer: Answer, calls: list[PlannedCall]) -> None:
        await self._record.step(answer, calls, step, self._runtime(), self._notices())
        self._ledger.kept(answer, whole=True)
        self._answer = Answer()
        self._results = {}

    async def _completed(self) -> str:
        answer = self._answer
        cut_short = _cut_short(answer)
        if answer.reason == "content_filter" and not answer.parts():
            message = "The provider's content filter stopped the answer."
            raise TurnFailed(turn_error("content_filter", message))
        self._record.notify(cut_short)
        return await settled(self._finish(TurnStatus.COMPLETED, cut_short))

    async def _finish(self, status: TurnStatus, notices: Sequence[Notice] = ()) -> str:
        """The end of a turn that keeps its last answer."""
        self._ended = await self._record.finish(
            status,
            answer=None if self._stopped_after else self._answer,
            step=self._step,
            runtime_ms=self._runtime(),
            notices=[*self._notices(), *notices],
        )
        self._ledger.kept(self._answer, whole=status is TurnStatus.COMPLETED)
        self._answer = Answer()
        return self._ended

    async def failed(self, error: TurnError) -> str:
        """Close what is open and end the turn with this error."""
        if self._answer.parts():
            self._record.withdraw()
        try:
            await self._record.close_calls(self._results)
            self._ended = await self._record.finish(
                TurnStatus.FAILED, error=error, notices=self._notices()
            )
        except LeaseLost:
            self._ended = "lost"
        return self._ended

    async def stopped(self) -> str:
        """What the worker's reason to stop asks for, unless the turn had ended by itself."""
        if self._ended is not None:
            return self._ended
        if self._control.stop == "drain" and await self._handed_back():
            return "handed_back"
        return "lost" if self._control.stop == "lost" else await self.interrupted()

    async def interrupted(self) -> str:
        """Keep what there is of the answer, answer the open calls, end the turn."""
        try:
            await self._record.close_calls(self._results)
            return await self._finish(TurnStatus.INTERRUPTED)
        except LeaseLost:
            return "lost"

    async def _handed_back(self) -> bool:
        """False when it is no longer ours, or when its user has stopped it meanwhile."""
        try:
            await self._record.hand_back(self._notices())
        except LeaseLost:
            return False
        return True

    async def _still_mine(self) -> bool:
        """Before a model call is tried again: nobody pays for an answer that cannot be kept."""
        try:
            return bool(await owned(self._deps.db, [self._claim]))
        except Unavailable:
            return True

    async def wind_up(self, ended: str) -> None:
        """Whoever waits for this chat may go on. What was paid for and is not history counts."""
        if self._is_child and ended not in ("lost", "handed_back"):
            self._control.more |= await inform_parent(self._deps, self._claim)
        ours = ended != "lost"
        if ours or not await self._ledger.has(self._answer, self._step):
            self._ledger.lost(self._answer)
        await self._ledger.write(ours=ours)

    def _runtime(self) -> int:
        return int((time.monotonic() - self._began) * 1000)

    def _notices(self) -> list[Notice]:
        """The notices that no commit has stored yet; the commit that gets them stores them."""
        if self._toolbox is None:
            return []
        notices, self._toolbox.notices = self._toolbox.notices, []
        return notices


def _usable_model(loaded: LoadedTurn) -> Model:
    if loaded.model_error is not None or loaded.model is None:
        raise TurnFailed(loaded.model_error or turn_error("config", "There is no model to call."))
    return loaded.model


def _cut_short(answer: Answer) -> list[Notice]:
    if answer.reason == "length":
        message = "The answer reached the model's output limit and is cut off."
        return [Notice(code="output_limit", server_id=None, message=message)]
    return []
