"""Files: what users upload, and what tools made that is too long for a message."""

from uuid import UUID

from sqlalchemy import Column, LargeBinary
from sqlmodel import Field

from chatd.store.tables.columns import Instant, Row, one_of, primary_id, timestamp

FILE_KINDS = ("upload", "result", "plan")


class File(Row, table=True):
    """`upload`: by a user. `result`: a tool's whole answer, of which the model was given a part.

    `plan`: what a turn in plan mode has proposed.
    """

    __tablename__ = "files"
    __table_args__ = (one_of("kind", FILE_KINDS, name="ck_files_kind"),)

    id: UUID = primary_id()
    owner_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE", index=True)
    kind: str = "upload"
    name: str = ""
    media_type: str
    size: int
    sha256: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    data: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: Instant = timestamp(now=True, index=True)
    approved_turn_id: UUID | None = Field(
        default=None, foreign_key="turns.id", ondelete="SET NULL", index=True
    )
    """Of a plan: the turn that carries it out."""


class ChatFile(Row, table=True):
    """A file is kept while any chat names it."""

    __tablename__ = "chat_files"

    chat_id: UUID = Field(foreign_key="chats.id", ondelete="CASCADE", primary_key=True)
    file_id: UUID = Field(foreign_key="files.id", ondelete="CASCADE", primary_key=True, index=True)
    created_at: Instant = timestamp(now=True)
