"""Answers to what a chat's turn waits for: stored, then its workers and readers are told."""

from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

from chatd.core.chats import Actor
from chatd.core.errors import Unavailable
from chatd.core.items import ItemKind
from chatd.core.tools import JsonObject
from chatd.queue import Wakes
from chatd.store.accounts import answer_connected, find_connected
from chatd.store.answering import answer_calls, answer_item
from chatd.store.db import Database
from chatd.stream.publisher import Publisher


class Answers:
    """All raise `NotFound` for somebody else's chat, and `Conflict` for what is not waiting."""

    def __init__(self, db: Database, wakes: Wakes, publisher: Publisher) -> None:
        self._db = db
        self._wakes = wakes
        self._publisher = publisher

    async def tool_results(
        self, actor: Actor, chat_id: UUID, results: Mapping[str, JsonObject]
    ) -> None:
        """Every open call of the client's own tools at once; see `store.answering`."""
        await self._tell(actor, chat_id, answer_calls(self._db, actor, chat_id, results))

    async def answer(
        self,
        actor: Actor,
        chat_id: UUID,
        item_id: UUID,
        kind: ItemKind,
        answer: Mapping[str, Any],
    ) -> None:
        """One approval, one question or one account. The same answer again changes nothing."""
        await self._tell(
            actor, chat_id, answer_item(self._db, actor, chat_id, item_id, kind, answer)
        )

    async def connected(self, user_id: UUID) -> None:
        """For whoever has committed a grant of this user: turns that waited for it go on.

        Nothing depends on it, so it never fails: a sweeper would see to the rest in two seconds.
        """
        with suppress(Unavailable):
            for item_id, chat_id in await find_connected(self._db, user_id):
                actor = Actor(user_id, "member")
                await self._tell(actor, chat_id, answer_connected(self._db, item_id, chat_id))

    async def _tell(self, actor: Actor, chat_id: UUID, answering: Awaitable[int | None]) -> None:
        """A claim passes over a locked chat, so whoever has locked one wakes, also in vain: the
        answer that came before may have made its turn runnable."""
        try:
            version = await answering
        finally:
            self._wakes.wake()
        if version:
            self._publisher.announce(chat_id, version, owner_id=actor.user_id)
