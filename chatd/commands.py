"""What a user does to a chat: decide under its lock, commit, then tell workers and readers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from chatd.core.chats import Actor, ChatPatch, NewChat, NewTurn, Once
from chatd.queue import Wakes
from chatd.store.db import Database
from chatd.store.editing import delete_chat, patch_chat
from chatd.store.ids import new_id
from chatd.store.submitting import Accepted, create_chat, submit_turn
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
        *,
        traceparent: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._db = db
        self._wakes = wakes
        self._publisher = publisher
        self._traceparent = traceparent

    async def create_chat(
        self, actor: Actor, new: NewChat, once: Once | None = None, *, chat_id: UUID
    ) -> Submitted:
        """A chat with its first turn. Raises `BadRequest`, `Conflict`; see `store.submitting`."""
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
            self._wakes.wake()
        return _submitted({**accepted.chat, "turn": accepted.turn}, accepted)

    async def send_message(
        self, actor: Actor, chat_id: UUID, new: NewTurn, once: Once | None = None
    ) -> Submitted:
        """A turn in an existing chat: runnable at once, or behind the one that runs."""
        accepted = await submit_turn(
            self._db,
            actor,
            chat_id,
            new,
            once,
            turn_id=new_id(),
            traceparent=self._traceparent(),
        )
        queued = accepted.turn["status"] == "queued"
        if accepted.version:
            self._publisher.announce(chat_id, accepted.version)
            # Also for a queued one: a claim skips a locked chat, and whoever locked it wakes again.
            self._wakes.wake()
        return _submitted(
            {"queued": queued, "turn": accepted.turn, "message": accepted.message}, accepted
        )

    async def patch_chat(self, actor: Actor, chat_id: UUID, patch: ChatPatch) -> None:
        """Raises `BadRequest` with the field that is wrong; then nothing is changed."""
        version = await patch_chat(self._db, actor, chat_id, patch)
        self._wakes.wake()
        self._publisher.announce(chat_id, version)

    async def delete_chat(self, actor: Actor, chat_id: UUID) -> None:
        """Cancels its turns; from now on the chat is not found."""
        version = await delete_chat(self._db, actor, chat_id)
        self._publisher.announce(chat_id, version)


def _submitted(body: dict[str, Any], accepted: Accepted) -> Submitted:
    return Submitted(
        body=body,
        chat_id=UUID(accepted.turn["chat_id"]),
        turn_id=UUID(accepted.turn["id"]),
        version=accepted.version,
        created=bool(accepted.version),
    )
