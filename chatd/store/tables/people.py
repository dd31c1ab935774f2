"""Users, their API tokens and groups, and the audit log."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, Index, LargeBinary, text
from sqlmodel import Field

from chatd.store.tables.columns import Instant, Row, json, one_of, primary_id, timestamp

ROLES = ("admin", "member")


class User(Row, table=True):
    __tablename__ = "users"
    __table_args__ = (one_of("role", ROLES, name="ck_users_role"),)

    id: UUID = primary_id()
    username: str = Field(unique=True, max_length=64)
    name: str = ""
    role: str = "member"
    suspended: bool = False
    spend_limit_micros: int | None = Field(default=None, sa_column=Column(BigInteger))
    """Instead of the deployment's; -1: none."""
    created_at: Instant = timestamp(now=True)


class ApiToken(Row, table=True):
    """Only the SHA-256 of a token is kept: it is compared, never read back."""

    __tablename__ = "api_tokens"

    id: UUID = primary_id()
    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE", index=True)
    name: str = ""
    token_sha256: bytes = Field(sa_column=Column(LargeBinary, nullable=False, unique=True))
    created_at: Instant = timestamp(now=True)
    expires_at: Instant = timestamp()
    revoked_at: Instant = timestamp()
    last_used_at: Instant = timestamp()


class Group(Row, table=True):
    __tablename__ = "groups"

    id: UUID = primary_id()
    name: str = Field(unique=True, max_length=64)
    description: str = ""
    created_at: Instant = timestamp(now=True)


class GroupMember(Row, table=True):
    __tablename__ = "group_members"

    group_id: UUID = Field(foreign_key="groups.id", ondelete="CASCADE", primary_key=True)
    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE", primary_key=True, index=True)


class AuditEntry(Row, table=True):
    """One thing that was done. Ids without foreign keys: the line outlives what it is about.

    Append-only by a trigger; see `chatd.store.audit.unseal`.
    """

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("ix_audit_log_target", "target_type", "target_id", "at"),
        Index("ix_audit_log_actor", "actor_id", "at"),
        Index("ix_audit_log_approval", "at", postgresql_where=text("target_type = 'approval'")),
        Index("ix_audit_log_chat", "chat_id", "at", postgresql_where=text("chat_id IS NOT NULL")),
        Index(
            "ix_audit_log_server",
            "server_id",
            "at",
            postgresql_where=text("server_id IS NOT NULL"),
        ),
    )

    id: int | None = Field(default=None, sa_column=Column(BigInteger, primary_key=True))
    at: Instant = timestamp(now=True, index=True)
    actor_id: UUID | None = None
    action: str
    target_type: str
    target_id: str
    request_id: str = ""
    chat_id: UUID | None = None
    server_id: UUID | None = None
    tool: str = Field(default="", sa_column_kwargs={"server_default": ""})
    """The chat, server and tool of an approval; empty elsewhere."""
    before: dict[str, Any] | None = json("null", nullable=True)
    after: dict[str, Any] | None = json("null", nullable=True)
