"""What a turn waits for: client tool results, approvals, answers, sub-agents."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, Index, text
from sqlmodel import Field

from chatd.core.items import ITEM_KINDS, ITEM_STATES
from chatd.store.tables.columns import Instant, Row, json, one_of, primary_id, timestamp


class OpenItem(Row, table=True):
    """One thing that somebody else has to do; (step, position) is the call it belongs to.

    `data` is what is asked, ready to be shown; `memory` is what the call needs to go on and nobody
    is shown; `answer` is what was answered, by a person, by a child or by the deadline.
    """

    __tablename__ = "open_items"
    __table_args__ = (
        one_of("kind", ITEM_KINDS, name="ck_open_items_kind"),
        one_of("state", ITEM_STATES, name="ck_open_items_state"),
        Index("ix_open_items_turn", "turn_id", "step", "position"),
        Index("ix_open_items_chat_open", "chat_id", postgresql_where=text("state = 'open'")),
        Index(
            "ix_open_items_deadline",
            "deadline",
            postgresql_where=text("state = 'open'"),
        ),
        Index(
            "ix_open_items_child",
            "child_chat_id",
            postgresql_where=text("state = 'open' AND child_chat_id IS NOT NULL"),
        ),
    )

    id: UUID = primary_id()
    chat_id: UUID = Field(foreign_key="chats.id", ondelete="CASCADE")
    turn_id: UUID = Field(foreign_key="turns.id", ondelete="CASCADE")
    owner_id: UUID
    step: int
    position: int
    tool_call_id: str
    kind: str
    state: str = Field(default="open", sa_column_kwargs={"server_default": "open"})
    data: dict[str, Any] = json("{}")
    memory: dict[str, Any] | None = json("null", nullable=True)
    answer: dict[str, Any] | None = json("null", nullable=True)
    answered_by: UUID | None = None
    child_chat_id: UUID | None = None
    deadline: Instant = timestamp()
    version: int = Field(
        default=0, sa_column=Column(BigInteger, nullable=False, server_default="0")
    )
    created_at: Instant = timestamp(now=True)
    answered_at: Instant = timestamp()
