"""What a user does to a chat: decide under its lock, commit, then tell workers and readers."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from chatd.core.chats import Actor, ChatPatch, NewChat, NewTurn, Once
from chatd.core.errors import UsageLimit
from chatd.core.messages import Part
from chatd.queue import Stops, Wakes
from chatd.store.db import Database
from chatd.store.editing import delete_chat, mark_read, patch_chat
from chatd.store.family import Changed
from chatd.store.history import Rewrite, clear_chat, rewrite
from chatd.store.idempotency import Accepted, is_known
from chatd.store.ids import new_id
from chatd.store.plans import Approving, approve_plan
from chatd.store.queueing import delete_queued, interrupt_chat, promote_queued
from chatd.store.spending import SpendLimits
from chatd.store.submitting import create_chat, submit_turn
from chatd.stream.publisher import Publisher


@dataclass(frozen=True, slots=True)
class Submitted:
    """An accepted turn. `body` is the JSON answer; `created` is false for a repeated request."""

    body: dict[str, Any]
    chat_id: UUID
    turn_id: UUID
    version: int
    created: bool


class Commands:
    """Every change a user makes to a chat. All raise `NotFound` for somebody else's chat."""

    def __init__(
        self,
        db: Database,
        wakes: Wakes,
        publisher: Publisher,
        stops: Stops,
        limits: SpendLimits | None = None,
        *,
        traceparent: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._db = db
        self._wakes = wakes
        self._publisher = publisher
        self._stops = stops
        self._limits = limits or SpendLimits(db)
        self._traceparent = traceparent

    async def create_chat(
        self, actor: Actor, new: NewChat, once: Once | None = None, *, chat_id: UUID
    ) -> Submitted:
        """A chat with its first turn. Raises `BadRequest`, `Conflict`; see `store.submitting`."""
        await self._within_limit(actor, once)
        accepted = await create_chat(
            self._db,
            actor,
            new,
            once,
            chat_id=chat_id,
            turn_id=new_id(),
            traceparent=self._traceparent(),
        )
        if accepted.version:
            self._publisher.touched(actor.user_id, chat_id)
            self._wakes.wake()
        return _submitted({**accepted.chat, "turn": accepted.turn}, accepted)

    async def send_message(
        self,
        actor: Actor,
        chat_id: UUID,
        new: NewTurn,
        once: Once | None = None,
        *,
        interrupt: bool = False,
    ) -> Submitted:
        """A turn in an existing chat: runnable at once, or behind the one that runs."""
        accepted = await self._submit(actor, chat_id, new, once, interrupt=interrupt)
        return _submitted(_said(accepted), accepted)

    async def compact(self, actor: Actor, chat_id: UUID, once: Once | None = None) -> Submitted:
        """A turn that sums up the history, behind the one that runs."""
        accepted = await self._submit(actor, chat_id, NewTurn([], kind="compact"), once)
        return _submitted({"turn": accepted.turn}, accepted)

    async def edit_message(
        self,
        actor: Actor,
        chat_id: UUID,
        message_id: int,
        new: NewTurn,
        once: Once | None = None,
    ) -> Submitted:
        """Say something else instead; the message and all that followed is taken out."""
        accepted = await self._rewrite(actor, chat_id, message_id, new, once)
        body = {
            "message": accepted.message,
            "turn": accepted.turn,
            "messages": [accepted.message],
            "deleted_message_ids": list(accepted.deleted),
            "warnings": [],
        }
        return _submitted(body, accepted)

    async def regenerate(
        self, actor: Actor, chat_id: UUID, overrides: NewTurn, once: Once | None = None
    ) -> Submitted:
        """Say the last thing again: what came of it is taken out, and its turn runs anew."""
        accepted = await self._rewrite(actor, chat_id, None, overrides, once)
        return _submitted(_said(accepted), accepted)

    async def approve_plan(
        self,
        actor: Actor,
        chat_id: UUID,
        file_id: UUID | None,
        content: Sequence[Part],
        once: Once | None = None,
    ) -> Submitted:
        """Carry the newest plan out, in a turn without plan mode. See `store.plans`."""
        await self._within_limit(actor, once)
        asked = Approving(actor, chat_id, file_id, content, once, new_id(), self._traceparent())
        with self._waking():
            accepted = await approve_plan(self._db, asked)
            self._tell(actor, accepted.changed)
        return _submitted(_said(accepted), accepted)

    async def interrupt(self, actor: Actor, chat_id: UUID, turn_id: UUID | None = None) -> None:
        """Stop the active turn, if it is that one, and those of the chats below."""
        with self._waking():
            self._tell(actor, await interrupt_chat(self._db, actor, chat_id, turn_id))

    async def delete_queued(self, actor: Actor, chat_id: UUID, turn_id: UUID) -> None:
        """Take a message out of the queue."""
        with self._waking():
            self._tell(actor, await delete_queued(self._db, actor, chat_id, turn_id))

    async def promote_queued(self, actor: Actor, chat_id: UUID, turn_id: UUID) -> dict[str, Any]:
        """Run a queued turn next, or at once. Answers as `send_message` does."""
        await self._within_limit(actor)
        with self._waking():
            accepted = await promote_queued(self._db, actor, chat_id, turn_id)
            self._tell(actor, accepted.changed)
        return _said(accepted)

    async def clear(self, actor: Actor, chat_id: UUID) -> None:
        """The model forgets; the history stays to be read. Raises `Conflict` while it is busy."""
        with self._waking():
            self._tell(actor, await clear_chat(self._db, actor, chat_id))

    async def mark_read(self, actor: Actor, chat_id: UUID, message_id: int | None) -> None:
        """Up to this message, or to the newest; never back."""
        if await mark_read(self._db, actor, chat_id, message_id):
            self._wakes.wake()

    async def patch_chat(self, actor: Actor, chat_id: UUID, patch: ChatPatch) -> None:
        """Raises `BadRequest` with the field that is wrong; then nothing is changed."""
        with self._waking():
            self._tell(actor, await patch_chat(self._db, actor, chat_id, patch))

    async def delete_chat(self, actor: Actor, chat_id: UUID) -> None:
        """Cancels its turns; from now on the chat is not found."""
        with self._waking():
            self._tell(actor, await delete_chat(self._db, actor, chat_id))

    async def _submit(
        self,
        actor: Actor,
        chat_id: UUID,
        new: NewTurn,
        once: Once | None,
        *,
        interrupt: bool = False,
    ) -> Accepted:
        await self._within_limit(actor, once)
        with self._waking():
            accepted = await submit_turn(
                self._db,
                actor,
                chat_id,
                new,
                once,
                turn_id=new_id(),
                traceparent=self._traceparent(),
                interrupt=interrupt,
            )
            self._tell(actor, accepted.changed)
        return accepted

    async def _rewrite(
        self,
        actor: Actor,
        chat_id: UUID,
        message_id: int | None,
        new: NewTurn,
        once: Once | None,
    ) -> Accepted:
        await self._within_limit(actor, once)
        asked = Rewrite(actor, chat_id, message_id, new, once, new_id(), self._traceparent())
        with self._waking():
            accepted = await rewrite(self._db, asked)
            self._tell(actor, accepted.changed)
        return accepted

    async def _within_limit(self, actor: Actor, once: Once | None = None) -> None:
        """Raises `UsageLimit`; not for what has been accepted before."""
        try:
            await self._limits.check(actor.user_id)
        except UsageLimit:
            if once is None or not await is_known(self._db, actor, once):
                raise

    @contextmanager
    def _waking(self) -> Generator[None]:
        """A claim passes over a locked chat, so whoever has locked one wakes again, also refused:
        the turn that was passed over may be another one than ours."""
        try:
            yield
        finally:
            self._wakes.wake()

    def tell(self, owner_id: UUID, changed: Changed) -> None:
        """Of what somebody else has changed in this owner's chats, in a transaction of theirs."""
        self._tell(Actor(owner_id, "member"), changed)

    def _tell(self, actor: Actor, changed: Changed) -> None:
        self._stops.push(changed.stops)
        for chat_id, version in changed.versions.items():
            self._publisher.announce(chat_id, version, owner_id=actor.user_id)


def _said(accepted: Accepted) -> dict[str, Any]:
    queued = accepted.turn["status"] == "queued"
    return {
        "queued": queued,
        "turn": accepted.turn,
        "message": accepted.message,
        "warnings": [],
    }


def _submitted(body: dict[str, Any], accepted: Accepted) -> Submitted:
    return Submitted(
        body=body,
        chat_id=UUID(accepted.turn["chat_id"]),
        turn_id=UUID(accepted.turn["id"]),
        version=accepted.version,
        created=bool(accepted.version),
    )
