"""Making titles beside the turns: by itself for new chats, and when users ask for one."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from uuid import UUID

from chatd import logs
from chatd.core.errors import TurnError
from chatd.core.models import Model
from chatd.core.usage import Spent, price
from chatd.core.work import LoadedTurn
from chatd.llm.clients import ModelClients
from chatd.llm.errors import classify
from chatd.llm.title import Line, Proposal, propose_title, title_context
from chatd.queue import Wakes
from chatd.store import titles
from chatd.store.config import read_config
from chatd.store.db import Database
from chatd.store.secrets import KeyRing
from chatd.store.usage import record_usage
from chatd.store.work import patiently
from chatd.stream.publisher import Publisher
from chatd.title_queue import AWAY, TitleQueue, TitleRequest

BUDGET_S = 30.0
AT_ONCE = 8
MAX_WAITING = 1000
"""New chats beyond these keep their first words as title."""

TAKE_S = 5.0
AWAY_PAUSE_S = 0.5

log = logs.get("titles")


class Titles:
    """One per worker process. Nothing it does delays or fails a turn; a crash loses a title."""

    def __init__(
        self,
        db: Database,
        keys: KeyRing,
        models: ModelClients,
        publisher: Publisher,
        wakes: Wakes,
    ) -> None:
        self._db = db
        self._keys = keys
        self._models = models
        self._publisher = publisher
        self._wakes = wakes
        self._new = asyncio.Semaphore(AT_ONCE)
        self._asked = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, turn: LoadedTurn) -> None:
        """Start to name the chat if this is the first turn of a new one; returns at once."""
        if len(self._tasks) >= MAX_WAITING or not _first(turn):
            return
        lines = titles.spoken(turn.history)
        own = turn.model.config_id if turn.model is not None else None
        if lines:
            claim = turn.claim
            self._start(self._name(claim.chat_id, claim.owner_id, own, lines))

    async def serve(self, queue: TitleQueue) -> None:
        """Make the titles that users ask for, until cancelled."""
        while True:
            await self._asked.acquire()
            try:
                request = await queue.take(TAKE_S)
            except AWAY:
                request = None
                await asyncio.sleep(AWAY_PAUSE_S)
            except BaseException:
                self._asked.release()
                raise
            if request is None:
                self._asked.release()
                continue
            task = self._start(self._answer(queue, request))
            task.add_done_callback(lambda _: self._asked.release())

    @property
    def busy(self) -> int:
        """Titles that are being made."""
        return len(self._tasks)

    async def close(self) -> None:
        """Give up what is being made."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(_logged(work), name="title")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _name(
        self, chat_id: UUID, owner_id: UUID, own: UUID | None, lines: list[Line]
    ) -> None:
        async with self._new:
            if not await titles.is_new(self._db, chat_id):
                return
            title, _ = await self._generate(chat_id, owner_id, own, lines)
            if title:
                version = await _kept(lambda: titles.save_generated(self._db, chat_id, title))
                self._tell(chat_id, owner_id, version)

    async def _answer(self, queue: TitleQueue, request: TitleRequest) -> None:
        """One request; whoever gave up waiting has given back the lease."""
        if not await titles.holds_lease(self._db, request.chat_id, request.until):
            return
        found = await titles.read_said(self._db, request.chat_id)
        title, problem = "", "The chat has no messages to name it after."
        if found is not None and found[2]:
            owner_id, own, lines = found
            title, problem = await self._generate(request.chat_id, owner_id, own, lines)
            if title and request.save:
                chat_id, until = request.chat_id, request.until
                version = await _kept(lambda: titles.save_asked(self._db, chat_id, until, title))
                self._tell(request.chat_id, owner_id, version)
        await queue.answer(request, title, problem)

    async def _generate(
        self, chat_id: UUID, owner_id: UUID, own: UUID | None, lines: list[Line]
    ) -> tuple[str, str]:
        """The first title any of the models proposes, or what went wrong last."""
        override = (await read_config(self._db)).title_model_config_id
        problem = "There is no model to ask."
        conversation = title_context(lines)
        try:
            async with asyncio.timeout(BUDGET_S):
                for model in await titles.title_models(self._db, self._keys, override, own):
                    try:
                        client = self._models.client(model)
                        proposal = await propose_title(client, model, conversation)
                    except Exception as error:
                        failed = _classified(error, model)
                        problem = failed["message"]
                        log.warning("no title", chat=str(chat_id), error=failed["kind"])
                        continue
                    await self._account(chat_id, owner_id, model, proposal)
                    if proposal.title:
                        return proposal.title, ""
                    problem = "The model proposed none."
        except TimeoutError:
            problem = "The model took too long."
        return "", problem

    async def _account(
        self, chat_id: UUID, owner_id: UUID, model: Model, proposal: Proposal
    ) -> None:
        spent = Spent(
            owner_id=owner_id,
            chat_id=chat_id,
            kind="title",
            usage=proposal.usage,
            model_config_id=model.config_id,
            cost_micros=price(proposal.usage, model),
            estimated=proposal.estimated,
        )
        await _kept(lambda: record_usage(self._db, [spent]))

    def _tell(self, chat_id: UUID, owner_id: UUID, version: int | None) -> None:
        """Readers of the new title; and workers, whose claim may have skipped the locked chat."""
        if version is not None:
            self._publisher.announce(chat_id, version, owner_id=owner_id)
        self._wakes.wake()


async def _kept(write: Callable[[], Awaitable[Any]]) -> Any:
    """What was paid for outlives PostgreSQL's restart. Raises `TimeoutError`."""
    async with asyncio.timeout(BUDGET_S):
        return await patiently(write)


def _first(turn: LoadedTurn) -> bool:
    """Whether nothing but the user's first message has been said."""
    roles = [message["role"] for message in turn.history if message["role"] != "system"]
    return (
        turn.title_source == "fallback"
        and turn.kind == "message"
        and turn.parent_chat_id is None
        and roles == ["user"]
    )


def _classified(error: Exception, model: Model) -> TurnError:
    secrets = [model.api_key.get_secret_value()] if model.api_key else []
    return classify(error, provider=model.provider, secrets=secrets)


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception as error:
        log.warning("a title could not be made", error=type(error).__name__)
