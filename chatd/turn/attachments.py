"""The files of a turn's messages: read when a model call first needs them, then remembered."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from chatd.core.messages import HistoryMessage
from chatd.store.db import Database
from chatd.store.files import load_files
from chatd.store.work import patiently

MAX_LOADED = 32 * 1024 * 1024
"""Bytes of all files in one prompt: providers take 50 MB, which is 36 MiB before base64."""


class Attachments:
    """One per attempt. The newest files come first when they are too many together."""

    def __init__(self, db: Database, chat_id: UUID, *, room: int = MAX_LOADED) -> None:
        self._db = db
        self._chat_id = chat_id
        self._room = room
        self._read: dict[str, bytes | None] = {}

    async def of(self, history: Sequence[HistoryMessage]) -> Mapping[str, bytes]:
        """Bytes by file id; those that are gone, or too many, are missing."""
        wanted = _wanted(history, self._room)
        new = [UUID(file_id) for file_id in wanted if file_id not in self._read]
        if new:
            found = await patiently(lambda: load_files(self._db, self._chat_id, new))
            self._read |= {str(file_id): found.get(str(file_id)) for file_id in new}
        kept = ((file_id, self._read[file_id]) for file_id in wanted)
        return {file_id: data for file_id, data in kept if data is not None}


def _wanted(history: Sequence[HistoryMessage], room: int) -> list[str]:
    """The files that a prompt has room for, newest first, each once."""
    wanted = dict[str, None]()
    for message in reversed(history):
        for part in reversed(message["content"]):
            if part["type"] == "file" and part["file_id"] not in wanted and part["size"] <= room:
                room -= part["size"]
                wanted[part["file_id"]] = None
    return list(wanted)
