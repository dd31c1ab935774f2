"""A turn's model calls: the same instructions and tools for its steps and for summaries."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from chatd.core.budget import budget
from chatd.core.deltas import Delta, Finished, Retrying
from chatd.core.errors import TurnFailed
from chatd.core.messages import HistoryMessage
from chatd.core.models import Model
from chatd.core.work import LoadedTurn, Notice
from chatd.llm.assembly import instructions, server_instructions
from chatd.llm.compaction import Calling
from chatd.llm.prompt import Message, chat_messages
from chatd.llm.retry import complete_with_retries
from chatd.turn.attachments import Attachments
from chatd.turn.compacting import Compactor
from chatd.turn.deps import TurnDeps
from chatd.turn.ledger import Ledger
from chatd.turn.record import Recorder
from chatd.turn.toolbox import Toolbox
from chatd.turn.watch import ModelWatch


class ModelCalls:
    """One attempt's, with the tools as policy has them at each call."""

    def __init__(
        self,
        deps: TurnDeps,
        turn: LoadedTurn,
        model: Model,
        toolbox: Toolbox,
        record: Recorder,
        ledger: Ledger,
        still_mine: Callable[[], Awaitable[bool]],
    ) -> None:
        self._deps = deps
        self._turn = turn
        self._model = model
        self._toolbox = toolbox
        self._record = record
        self._ledger = ledger
        self._still_mine = still_mine
        self._instructions = instructions(turn)
        self._files = Attachments(deps.db, turn.claim.chat_id)
        self._compactor = Compactor(deps, turn, model, record, ledger, self._tell)

    async def complete(
        self, history: list[HistoryMessage], step: int
    ) -> AsyncGenerator[list[Delta]]:
        """The call of one step. A compaction before it replaces what `history` holds.

        Says nothing when the user is found to have stopped the turn. Raises `TurnFailed`.
        """
        if await self._toolbox.refresh():
            self._record.notify(self._toolbox.notices)
        await self._compactor.before_call(history, step, self._calling())
        while not self._record.interrupted:
            stream = self._answer(history)
            try:
                async for deltas in stream:
                    yield deltas
                return
            except TurnFailed as failed:
                shorter = await self._compactor.after_refusal(
                    failed.error, history, step, self._calling()
                )
                if not shorter:
                    raise
                withdrawn = Retrying(1, 0, failed.error)
            finally:
                await stream.aclose()
            yield [withdrawn]

    async def compact(self, history: list[HistoryMessage]) -> None:
        """Sum the history up because the user has asked for it. Raises `TurnFailed`."""
        await self._compactor.manually(history, self._calling())

    async def _answer(self, history: Sequence[HistoryMessage]) -> AsyncGenerator[list[Delta]]:
        messages = await self._render(history)
        calling = self._calling()
        calling.asked(messages)
        stream = complete_with_retries(
            calling.client,
            calling.model,
            messages,
            calling.tools,
            effort=calling.effort,
            still_mine=calling.still_mine,
        )
        watch = ModelWatch(self._model, messages=len(history))
        try:
            async for deltas in stream:
                watch.saw(deltas)
                last = deltas[-1]
                if isinstance(last, Finished):
                    self._compactor.saw(last.usage)
                yield deltas
        finally:
            watch.ended()
            await stream.aclose()

    def _calling(self) -> Calling:
        model, tools = self._model, self._toolbox.tools
        return Calling(
            client=self._deps.models.client(model),
            model=model,
            tools=tools,
            effort=self._turn.reasoning_effort,
            render=self._render,
            still_mine=self._still_mine,
            asked=lambda messages: self._ledger.asked(model, messages, tools),
            lost=self._ledger.lost,
        )

    async def _render(self, history: Sequence[HistoryMessage]) -> list[Message]:
        system = [*self._instructions, *server_instructions(self._toolbox.instructions)]
        files = await self._files.of(history)
        return chat_messages(system, history, files, max_text=budget(self._model.context_limit))

    def _tell(self, notice: Notice) -> None:
        self._record.notify([notice])
        self._toolbox.notices.append(notice)
