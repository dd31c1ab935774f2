"""Processes that are alive, and the keys that secrets are encrypted with."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column
from sqlmodel import Field

from chatd.store.tables.columns import Instant, Row, json, one_of, timestamp

PROCESS_KINDS = ("api", "worker")


class Process(Row, table=True):
    """A process of ours. One that goes says so; one that is lost stops beating."""

    __tablename__ = "processes"
    __table_args__ = (one_of("kind", PROCESS_KINDS, name="ck_processes_kind"),)

    id: str = Field(primary_key=True)
    """Host, process id and a random part, as `turns.worker_id`."""
    kind: str
    version: str = ""
    started_at: Instant = timestamp(now=True)
    beat_at: Instant = timestamp(now=True)
    left_at: Instant = timestamp()
    capacity: int = 0
    running: int = 0
    key_ids: list[str] = json("[]")
    """Of the encryption keys it can read."""


class EncryptionKey(Row, table=True):
    """A key by its id and fingerprint, never the key itself; and how far a rotation to it is."""

    __tablename__ = "encryption_keys"

    id: str = Field(primary_key=True)
    fingerprint: str
    first_seen_at: Instant = timestamp(now=True)
    rotation_started_at: Instant = timestamp()
    rotation_ended_at: Instant = timestamp()
    rotated: int = Field(
        default=0, sa_column=Column(BigInteger, nullable=False, server_default="0")
    )
    progress: dict[str, Any] = json("{}")
    """The last row done, by table and column: a rotation goes on where it was stopped."""
    rotated_by: UUID | None = None
