"""What model calls cost: a line each, which outlives its chat."""

from uuid import UUID

from sqlalchemy import BigInteger, Column, Identity, Index
from sqlmodel import Field

from chatd.core.usage import USAGE_KINDS
from chatd.store.tables.columns import Instant, Row, one_of, timestamp


def _tokens() -> Column[int]:
    return Column(BigInteger, nullable=False, server_default="0")


class UsageEntry(Row, table=True):
    """One model call that somebody pays for, kept or not. Ids without foreign keys.

    `estimated`: the provider had not said when the call was lost. `cost_micros` null: no prices.
    """

    __tablename__ = "usage_entries"
    __table_args__ = (
        one_of("kind", USAGE_KINDS, name="ck_usage_entries_kind"),
        Index("ix_usage_entries_owner", "owner_id", "at"),
        Index("ix_usage_entries_chat", "chat_id"),
    )

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(), primary_key=True))
    at: Instant = timestamp(now=True)
    owner_id: UUID
    chat_id: UUID
    turn_id: UUID | None = None
    kind: str
    model_config_id: UUID | None = None
    input_tokens: int = Field(default=0, sa_column=_tokens())
    output_tokens: int = Field(default=0, sa_column=_tokens())
    total_tokens: int = Field(default=0, sa_column=_tokens())
    reasoning_tokens: int = Field(default=0, sa_column=_tokens())
    cache_creation_tokens: int = Field(default=0, sa_column=_tokens())
    cache_read_tokens: int = Field(default=0, sa_column=_tokens())
    cost_micros: int | None = Field(default=None, sa_column=Column(BigInteger))
    estimated: bool = Field(default=False, sa_column_kwargs={"server_default": "false"})
