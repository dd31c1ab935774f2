"""Files: kept, named by messages, linked to chats, read by their owner and by turns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import text

from chatd.core.errors import BadRequest, LeaseLost, NotFound
from chatd.core.files import MAX_CHAT_FILES, FileInfo, NewFile
from chatd.core.messages import FilePart, Part
from chatd.core.work import Claim
from chatd.store.db import Database
from chatd.store.ids import new_id
from chatd.store.views import file_view

_INFO = (
    "f.id, f.kind, f.name, f.media_type, f.size, encode(f.sha256, 'hex') AS sha256, f.created_at"
)

ADD_FILE = f"""
INSERT INTO files AS f (id, owner_id, kind, name, media_type, size, sha256, data)
VALUES ($1, $2, 'upload', $3, $4, $5, $6, $7) RETURNING {_INFO}
"""

FILE_INFO = f"SELECT {_INFO} FROM files f WHERE f.id = $1 AND f.owner_id = $2"

FILE_DATA = "SELECT data FROM files WHERE id = $1 AND owner_id = $2"

UPLOADS = """
SELECT id, media_type, name, size FROM files
WHERE owner_id = $1 AND kind = 'upload' AND id = ANY ($2::uuid[])
"""

LOCK_CHAT = text("SELECT id FROM chats WHERE id = :chat FOR NO KEY UPDATE")

LINK_FILES = text(
    f"""INSERT INTO chat_files (chat_id, file_id)
    SELECT c.id, f.id
    FROM unnest(CAST(:files AS uuid[])) WITH ORDINALITY AS asked(id, place)
        JOIN files f ON f.id = asked.id JOIN chats c ON c.id = :chat AND c.owner_id = f.owner_id
    WHERE NOT EXISTS (SELECT 1 FROM chat_files l WHERE l.chat_id = c.id AND l.file_id = f.id)
    ORDER BY asked.place
    LIMIT greatest(0, {MAX_CHAT_FILES} - (SELECT count(*) FROM chat_files l
        JOIN files u ON u.id = l.file_id WHERE l.chat_id = :chat AND u.kind = 'upload'))
    FOR KEY SHARE OF f"""
)

LINKED_FILES = """
SELECT f.id, f.name, f.media_type, f.size, f.created_at
FROM chat_files l JOIN files f ON f.id = l.file_id
WHERE l.chat_id = $1 AND f.kind IN ('upload', 'plan') ORDER BY l.created_at, f.id
"""

LOAD_FILES = """
SELECT f.id, f.data FROM files f JOIN chats c ON c.id = $1
WHERE f.id = ANY ($2::uuid[]) AND (f.owner_id = c.owner_id
    OR EXISTS (SELECT 1 FROM chat_files l WHERE l.chat_id = c.id AND l.file_id = f.id))
"""

KEEP_RESULT = """
WITH fence AS (
    SELECT t.chat_id, t.owner_id FROM turns t WHERE t.id = $2 AND t.lease_id = $3
), file AS (
    INSERT INTO files (id, owner_id, kind, name, media_type, size, sha256, data)
    SELECT $1, fence.owner_id, 'result', $4, $5, $6, $7, $8 FROM fence
    ON CONFLICT (id) DO UPDATE SET name = excluded.name, media_type = excluded.media_type,
        size = excluded.size, sha256 = excluded.sha256, data = excluded.data
    RETURNING id
), link AS (
    INSERT INTO chat_files (chat_id, file_id) SELECT fence.chat_id, file.id FROM fence, file
    ON CONFLICT DO NOTHING
)
SELECT id FROM file
"""

RESULT_FILE = """
SELECT f.data FROM files f WHERE f.id = $2 AND f.kind = 'result' AND EXISTS (
    SELECT 1 FROM chat_files l JOIN chats c ON l.chat_id IN (c.id, c.parent_chat_id)
    WHERE c.id = $1 AND l.file_id = f.id)
"""


@dataclass(frozen=True, slots=True)
class Linked:
    """A chat's files after linking; `left_out` counts those that were one too many."""

    files: list[Any]
    left_out: int


async def add_file(db: Database, owner_id: UUID, file: NewFile) -> FileInfo:
    """Keep a user's file; without a chat that names it, it goes after a while."""
    row = await db.fetch_one(
        ADD_FILE,
        new_id(),
        owner_id,
        file.name,
        file.media_type,
        len(file.data),
        sha256(file.data).digest(),
        file.data,
    )
    return _info(row)


async def file_info(db: Database, owner_id: UUID, file_id: UUID) -> FileInfo:
    """Raises `NotFound` also for somebody else's file."""
    row = await db.fetch_one(FILE_INFO, file_id, owner_id)
    if row is None:
        raise NotFound
    return _info(row)


async def file_data(db: Database, owner_id: UUID, file_id: UUID) -> bytes:
    """Raises `NotFound` also for somebody else's file."""
    row = await db.fetch_one(FILE_DATA, file_id, owner_id)
    if row is None:
        raise NotFound
    return row["data"]


async def resolve_files(db: Database, owner_id: UUID, content: list[Part]) -> list[Part]:
    """The content with what is known of each attached file.

    Raises `BadRequest` naming the ids of files that do not exist or are somebody else's.
    """
    asked = attached(content)
    if not asked:
        return content
    rows = {str(row["id"]): row for row in await db.fetch(UPLOADS, owner_id, asked)}
    unknown = [str(file_id) for file_id in asked if str(file_id) not in rows]
    if unknown:
        listed = ", ".join(unknown)
        raise BadRequest(
            "One or more file IDs are invalid.",
            detail=f"Invalid IDs: {listed}",
            validations=[{"field": "content", "detail": f"unknown files: {listed}"}],
        )
    return [
        _file_part(rows[part["file_id"]]) if part["type"] == "file" else part for part in content
    ]


def attached(content: Sequence[Part]) -> list[UUID]:
    """The files that a message names, each once."""
    ids = (part["file_id"] for part in content if part["type"] == "file")
    return [UUID(file_id) for file_id in dict.fromkeys(ids)]


async def link_files(db: Database, chat_id: UUID, file_ids: Sequence[UUID]) -> Linked:
    """Keep the files with the chat, at most `MAX_CHAT_FILES` of them."""
    async with db.statements() as connection:
        await connection.execute(LOCK_CHAT, {"chat": chat_id})
        await connection.execute(LINK_FILES, {"chat": chat_id, "files": list(file_ids)})
    files = [file_view(row) for row in await db.fetch(LINKED_FILES, chat_id)]
    kept = {file["id"] for file in files}
    return Linked(files, sum(str(file_id) not in kept for file_id in file_ids))


async def load_files(db: Database, chat_id: UUID, file_ids: Sequence[UUID]) -> Mapping[str, bytes]:
    """The bytes by id: of files that the chat or its owner has; those that are gone are missing."""
    rows = await db.fetch(LOAD_FILES, chat_id, list(file_ids))
    return {str(row["id"]): row["data"] for row in rows}


async def keep_result(db: Database, claim: Claim, file_id: UUID, file: NewFile) -> None:
    """Keep a tool's whole answer with the chat; doing it again replaces it. Raises `LeaseLost`."""
    row = await db.fetch_one(
        KEEP_RESULT,
        file_id,
        claim.turn_id,
        claim.lease_id,
        file.name,
        file.media_type,
        len(file.data),
        sha256(file.data).digest(),
        file.data,
    )
    if row is None:
        raise LeaseLost


async def read_result_file(db: Database, chat_id: UUID, file_id: UUID) -> str | None:
    """A tool's whole answer, if it was given in this chat or in the one that started it."""
    row = await db.fetch_one(RESULT_FILE, chat_id, file_id)
    return bytes(row["data"]).decode() if row is not None else None


def _file_part(row: Any) -> Part:
    return FilePart(
        type="file",
        file_id=str(row["id"]),
        media_type=row["media_type"],
        name=row["name"],
        size=row["size"],
    )


def _info(row: Any) -> FileInfo:
    return FileInfo(**dict(row))
