"""Files of a message: known before it is accepted, kept with the chat once it is."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from uuid import UUID

from chatd import logs
from chatd.api.parts import Parts
from chatd.commands import Submitted
from chatd.core.chats import Actor, NewTurn
from chatd.core.errors import Unavailable
from chatd.core.files import MAX_CHAT_FILES
from chatd.store.files import link_files, resolve_files

log = logs.get("attaching")


async def with_files(parts: Parts, actor: Actor, new: NewTurn) -> NewTurn:
    """The turn with what is known of its files. Raises `BadRequest` for ids that are not theirs."""
    return replace(new, content=await resolve_files(parts.db, actor.user_id, new.content))


def keeping_files(
    parts: Parts, file_ids: Sequence[UUID], accepted: Callable[[], Awaitable[Submitted]]
) -> Callable[[], Awaitable[Submitted]]:
    """The command, and then its files are linked to the chat."""
    if not file_ids:
        return accepted

    async def kept() -> Submitted:
        submitted = await accepted()
        await _keep(parts, submitted, file_ids)
        return submitted

    return kept


async def _keep(parts: Parts, submitted: Submitted, file_ids: Sequence[UUID]) -> None:
    """Link the files to the chat, and say in the answer what became of them.

    The turn is accepted: whatever happens here is a warning.
    """
    try:
        linked = await link_files(parts.db, submitted.chat_id, file_ids)
    except Unavailable:
        log.warning("files were not linked", chat=submitted.chat_id)
        submitted.body["warnings"] = ["The files could not be linked to the chat."]
        return
    finally:
        parts.streams.wake()  # a claim passes over the chat that was locked
    if "files" in submitted.body:
        submitted.body["files"] = linked.files
    if linked.left_out:
        submitted.body["warnings"] = [
            f"A chat keeps at most {MAX_CHAT_FILES} files: {linked.left_out} of this message are "
            "not kept with it and may go."
        ]
