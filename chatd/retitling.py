"""A title because a user asked for one: allowed, one at a time, made by a worker."""

from contextlib import suppress
from uuid import UUID

from chatd.core.chats import Actor
from chatd.core.errors import Unavailable
from chatd.queue import Wakes
from chatd.store.db import Database
from chatd.store.spending import SpendLimits
from chatd.store.titles import release_lease, take_lease
from chatd.title_queue import TitleQueue, TitleRequest


class Retitling:
    """The front door's end: it never calls a model itself."""

    def __init__(self, db: Database, wakes: Wakes, titles: TitleQueue, limits: SpendLimits) -> None:
        self._db = db
        self._wakes = wakes
        self._titles = titles
        self._limits = limits

    async def propose(self, actor: Actor, chat_id: UUID, *, save: bool) -> str:
        """A title for the chat; with `save` it has it then.

        Raises `NotFound`, `Conflict` while one is made, `UsageLimit`, `Unavailable`, `TimedOut`.
        """
        await self._limits.check(actor.user_id)
        until = await take_lease(self._db, actor.user_id, chat_id)
        # A claim may have skipped the chat while it was locked for us.
        self._wakes.wake()
        try:
            return await self._titles.ask(TitleRequest(chat_id, until, save))
        finally:
            with suppress(Unavailable):  # it runs out by itself
                await release_lease(self._db, chat_id, until)
                self._wakes.wake()
