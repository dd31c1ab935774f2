"""MCP server configs and the counter that says when policy must be read again."""

from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    LargeBinary,
    Text,
    text,
)
from sqlmodel import Field

from chatd.store.tables.columns import Instant, Row, json, one_of, primary_id, timestamp

TRANSPORTS = ("streamable_http", "sse")
AUTH_TYPES = ("none", "oauth2", "api_key", "custom_headers", "user_oidc")
AVAILABILITIES = ("force_on", "default_on", "default_off")
APPROVALS = ("always", "never", "unless_read_only")


def _names() -> Column[list[str]]:
    return Column(ARRAY(Text()), nullable=False, server_default=text("'{}'"))


def _secret() -> Column[bytes]:
    return Column(LargeBinary, nullable=True)


class McpServerConfig(Row, table=True):
    """One configured server. The five secret columns hold ciphertext, each with its key's id."""

    __tablename__ = "mcp_server_configs"
    __table_args__ = (
        one_of("transport", TRANSPORTS, name="ck_mcp_server_configs_transport"),
        one_of("auth_type", AUTH_TYPES, name="ck_mcp_server_configs_auth_type"),
        one_of("availability", AVAILABILITIES, name="ck_mcp_server_configs_availability"),
        one_of("require_approval", APPROVALS, name="ck_mcp_server_configs_require_approval"),
        CheckConstraint("slug <> ''", name="ck_mcp_server_configs_slug"),
        CheckConstraint("tool_timeout_seconds > 0", name="ck_mcp_server_configs_timeout"),
    )

    id: UUID = primary_id()
    display_name: str
    slug: str = Field(unique=True)
    description: str = ""
    icon_url: str = ""
    transport: str
    url: str
    auth_type: str = "none"
    oauth2_client_id: str = ""
    oauth2_client_secret: bytes | None = Field(default=None, sa_column=_secret())
    oauth2_client_secret_key_id: str | None = None
    oauth2_auth_url: str = ""
    oauth2_token_url: str = ""
    oauth2_revocation_url: str = ""
    oauth2_scopes: str = ""
    api_key_header: str = ""
    api_key_value: bytes | None = Field(default=None, sa_column=_secret())
    api_key_value_key_id: str | None = None
    custom_headers: bytes | None = Field(default=None, sa_column=_secret())
    custom_headers_key_id: str | None = None
    tool_allow_list: list[str] = Field(default_factory=list, sa_column=_names())
    tool_deny_list: list[str] = Field(default_factory=list, sa_column=_names())
    availability: str = "default_off"
    enabled: bool = False
    model_intent: bool = False
    allow_in_plan_mode: bool = False
    forward_coder_headers: bool = False
    trust_annotations: bool = False
    require_approval: str = Field(default="never", sa_column_kwargs={"server_default": "never"})
    tool_settings: dict[str, Any] = json("{}")
    """By original tool name; see `chatd.core.servers.ToolSetting`."""
    tool_timeout_seconds: int = 60
    version: int = Field(
        default=1, sa_column=Column(BigInteger, nullable=False, server_default="1")
    )
    created_by: UUID | None = Field(default=None, foreign_key="users.id", ondelete="SET NULL")
    updated_by: UUID | None = Field(default=None, foreign_key="users.id", ondelete="SET NULL")
    created_at: Instant = timestamp(now=True)
    updated_at: Instant = timestamp(now=True)


class PolicyState(Row, table=True):
    """One row. Every transaction that changes what policy reads bumps `version`."""

    __tablename__ = "policy_state"
    __table_args__ = (CheckConstraint("id", name="ck_policy_state_one_row"),)

    id: bool = Field(
        default=True, sa_column=Column(Boolean, primary_key=True, server_default=text("true"))
    )
    version: int = Field(
        default=1, sa_column=Column(BigInteger, nullable=False, server_default="1")
    )
