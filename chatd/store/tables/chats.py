"""Chats, turns, messages and the journal of tool calls."""

from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Identity,
    Index,
    LargeBinary,
    SmallInteger,
    UniqueConstraint,
    text,
)
from sqlmodel import Field

from chatd.core.turns import ACTIVE, TurnStatus
from chatd.store.tables.columns import (
    Instant,
    Row,
    ids,
    json,
    one_of,
    primary_id,
    timestamp,
    verbatim_json,
)

STATUSES = tuple(status.value for status in TurnStatus)
_ACTIVE = ", ".join(f"'{status}'" for status in sorted(ACTIVE))
CALL_STATES = ("intended", "sent", "waiting", "done", "failed", "unknown", "denied", "cancelled")
TITLE_SOURCES = ("fallback", "generated", "user")
TURN_KINDS = ("message", "compact")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def _counter() -> Column[int]:
    return Column(BigInteger, nullable=False, server_default="0")


def _of_sub_agents(name: str, column: str) -> Index:
    """Most chats are none: their changes need not be written to it."""
    return Index(name, column, postgresql_where=text(f"{column} IS NOT NULL"))


class Chat(Row, table=True):
    """`version` grows by one in every transaction that changes anything a client keeps.

    `history_version` is the version of the last edit or clear: an older cursor starts afresh.
    The model reads from `context_from_message_id` on: the last summary or clear.
    """

    __tablename__ = "chats"
    __table_args__ = (
        one_of("plan_mode", ("plan",), name="ck_chats_plan_mode"),
        one_of("client_type", ("ui", "api"), name="ck_chats_client_type"),
        one_of("mode", ("explore",), name="ck_chats_mode"),
        one_of("title_source", TITLE_SOURCES, name="ck_chats_title_source"),
        Index(
            "ix_chats_owner_updated",
            "owner_id",
            text("updated_at DESC"),
            text("id DESC"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
        _of_sub_agents("ix_chats_parent", "parent_chat_id"),
        _of_sub_agents("ix_chats_root", "root_chat_id"),
        Index("ix_chats_deleted", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
    )

    id: UUID = primary_id()
    owner_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE")
    parent_chat_id: UUID | None = Field(default=None, foreign_key="chats.id", ondelete="CASCADE")
    root_chat_id: UUID | None = Field(default=None, foreign_key="chats.id", ondelete="CASCADE")
    title: str
    title_source: str = Field(default="fallback", sa_column_kwargs={"server_default": "fallback"})
    retitling_until: Instant = timestamp()
    mode: str | None = None
    dynamic_tools: list[dict[str, Any]] = json("[]")
    system_prompt: str = ""
    plan_mode: str | None = None
    client_type: str = "api"
    last_model_config_id: UUID | None = Field(
        default=None, foreign_key="model_configs.id", ondelete="SET NULL"
    )
    last_reasoning_effort: str | None = None
    mcp_server_ids: list[UUID] = ids()
    labels: dict[str, str] = json("{}")
    archived: bool = False
    archived_at: Instant = timestamp()
    pin_order: int = 0
    last_read_message_id: int | None = Field(default=None, sa_column=Column(BigInteger))
    context_from_message_id: int = Field(default=0, sa_column=_counter())
    version: int = Field(default=1, sa_column=_counter())
    history_version: int = Field(default=0, sa_column=_counter())
    created_at: Instant = timestamp(now=True)
    updated_at: Instant = timestamp(now=True)
    deleted_at: Instant = timestamp()


class Turn(Row, table=True):
    """The queue of a chat and the unit of work. `content` is the user message until it is history.

    `attempt` counts claims; `lost` counts leases that ran out since the last committed step;
    `commits` counts the worker's commits, so that a preview knows which rows it follows.
    `parked_seconds` is how long it waited for open items: that does not count as running.
    """

    __tablename__ = "turns"
    __table_args__ = (
        one_of("status", STATUSES, name="ck_turns_status"),
        one_of("kind", TURN_KINDS, name="ck_turns_kind"),
        one_of("plan_mode", ("plan",), name="ck_turns_plan_mode"),
        one_of("reasoning_effort", EFFORTS, name="ck_turns_reasoning_effort"),
        one_of("on_auth_required", ("skip", "wait"), name="ck_turns_on_auth_required"),
        CheckConstraint(
            "(status = ANY ('{running,interrupting}'::text[])) = (lease_id IS NOT NULL)",
            name="ck_turns_lease",
        ),
        Index(
            "uq_turns_active",
            "chat_id",
            unique=True,
            postgresql_where=text(f"status IN ({_ACTIVE})"),
        ),
        Index("ix_turns_queue", "chat_id", "position"),
        Index(
            "ix_turns_queued",
            "chat_id",
            "position",
            postgresql_where=text("status = 'queued'"),
        ),
        Index(
            "ix_turns_pending",
            "pending_at",
            postgresql_where=text("status = 'pending'"),
        ),
        Index(
            "ix_turns_leased",
            "owner_id",
            postgresql_where=text("status IN ('running', 'interrupting')"),
        ),
        Index(
            "uq_turns_idempotency",
            "owner_id",
            "idempotency_path",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
    )

    id: UUID = primary_id()
    chat_id: UUID = Field(foreign_key="chats.id", ondelete="CASCADE")
    owner_id: UUID
    """The chat's, which has the foreign key."""
    status: str
    kind: str = Field(default="message", sa_column_kwargs={"server_default": "message"})
    position: int | None = Field(
        default=None, sa_column=Column(BigInteger, Identity(), nullable=False)
    )
    content: list[dict[str, Any]] = verbatim_json()
    plan_mode: str | None = None
    model_config_id: UUID | None = Field(
        default=None, foreign_key="model_configs.id", ondelete="SET NULL"
    )
    reasoning_effort: str | None = None
    mcp_server_ids: list[UUID] = ids()
    on_auth_required: str = Field(default="skip", sa_column_kwargs={"server_default": "skip"})
    """What becomes of it where a server wants its owner to connect: goes on without, or waits."""
    user_message_id: int | None = Field(default=None, sa_column=Column(BigInteger))
    idempotency_path: str | None = None
    idempotency_key: str | None = None
    request_sha256: bytes | None = Field(default=None, sa_column=Column(LargeBinary))
    attempt: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    lost: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    commits: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    lease_id: UUID | None = None
    lease_expires_at: Instant = timestamp()
    worker_id: str | None = None
    version: int = Field(default=0, sa_column=_counter())
    notices: list[dict[str, Any]] = json("[]")
    error: dict[str, Any] | None = verbatim_json(nullable=True)
    traceparent: str | None = None
    queued_at: Instant = timestamp(now=True)
    pending_at: Instant = timestamp()
    started_at: Instant = timestamp()
    first_token_at: Instant = timestamp()
    parked_at: Instant = timestamp()
    parked_seconds: float = Field(default=0.0, sa_column_kwargs={"server_default": "0"})
    finished_at: Instant = timestamp()


class ChatMessage(Row, table=True):
    """One message of a chat's history, unique by (turn, step, position): no commit lands twice."""

    __tablename__ = "chat_messages"
    __table_args__ = (
        one_of("role", ("system", "user", "assistant", "tool"), name="ck_chat_messages_role"),
        one_of("visibility", ("user", "model", "both"), name="ck_chat_messages_visibility"),
        UniqueConstraint("turn_id", "step", "position", name="uq_chat_messages_place"),
        Index("ix_chat_messages_chat", "chat_id", "id"),
    )

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(), primary_key=True))
    chat_id: UUID = Field(foreign_key="chats.id", ondelete="CASCADE")
    turn_id: UUID = Field(foreign_key="turns.id", ondelete="CASCADE")
    step: int
    position: int
    created_by: UUID | None = None
    model_config_id: UUID | None = None
    role: str
    content: list[dict[str, Any]] = verbatim_json()
    content_version: int = Field(
        default=1, sa_column=Column(SmallInteger, nullable=False, server_default="1")
    )
    visibility: str = Field(default="both", sa_column_kwargs={"server_default": "both"})
    compressed: bool = Field(default=False, sa_column_kwargs={"server_default": "false"})
    deleted: bool = Field(default=False, sa_column_kwargs={"server_default": "false"})
    usage: dict[str, Any] | None = verbatim_json(nullable=True)
    context_limit: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    total_cost_micros: int | None = Field(default=None, sa_column=Column(BigInteger))
    runtime_ms: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    provider_response_id: str = Field(default="", sa_column_kwargs={"server_default": ""})
    version: int = Field(default=0, sa_column=_counter())
    created_at: Instant = timestamp(now=True)


class ToolCallRow(Row, table=True):
    """The journal: a row before a call leaves, its state after. Also the audit line of the call.

    Ids without foreign keys: arguments and results go with their chat, the line stays.
    """

    __tablename__ = "tool_calls"
    __table_args__ = (
        one_of("state", CALL_STATES, name="ck_tool_calls_state"),
        UniqueConstraint("turn_id", "step", "position", name="uq_tool_calls_place"),
        Index("ix_tool_calls_chat", "chat_id"),
        Index("ix_tool_calls_intended", "intended_at"),
    )

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(), primary_key=True))
    chat_id: UUID
    turn_id: UUID
    user_id: UUID
    step: int
    position: int
    tool_call_id: str
    tool_name: str
    server_id: UUID | None = None
    original_name: str = ""
    definition_hash: str = ""
    safe: bool = False
    state: str
    attempt: int
    arguments: str | None = None
    arguments_sha256: str | None = None
    """Once the chat is gone, all that is left of them."""
    result: dict[str, Any] | None = verbatim_json(nullable=True)
    intended_at: Instant = timestamp(now=True)
    sent_at: Instant = timestamp()
    finished_at: Instant = timestamp()
