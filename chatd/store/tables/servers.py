"""MCP server configs, whose they are, their pinned tools, and the counter of policy."""

from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    LargeBinary,
    Text,
    text,
)
from sqlmodel import Field

from chatd.core.oauth import AUTH_METHODS
from chatd.store.tables.columns import Instant, Row, json, one_of, primary_id, timestamp

TRANSPORTS = ("streamable_http", "sse")
AUTH_TYPES = (
    "none",
    "oauth2",
    "api_key",
    "custom_headers",
    "user_oidc",
    "client_credentials",
)
AVAILABILITIES = ("force_on", "default_on", "default_off")
APPROVALS = ("always", "never", "unless_read_only")
ACCESSES = ("everyone", "groups")
TOOL_CHANGES = ("follow", "hold", "quarantine")
OUTCOMES = ("connected", "disconnected", "timeout", "refused", "unauthorized", "failed")


def _names() -> Column[list[str]]:
    return Column(ARRAY(Text()), nullable=False, server_default=text("'{}'"))


def _secret() -> Column[bytes]:
    return Column(LargeBinary, nullable=True)


def _word() -> Any:
    return Field(default="", sa_column_kwargs={"server_default": ""})


def _flag(*, default: bool = False) -> Any:
    said = "true" if default else "false"
    return Field(default=default, sa_column_kwargs={"server_default": text(said)})


class McpServerConfig(Row, table=True):
    """One configured server. The six secret columns hold ciphertext, each with its key's id."""

    __tablename__ = "mcp_server_configs"
    __table_args__ = (
        one_of("transport", TRANSPORTS, name="ck_mcp_server_configs_transport"),
        one_of("auth_type", AUTH_TYPES, name="ck_mcp_server_configs_auth_type"),
        one_of("availability", AVAILABILITIES, name="ck_mcp_server_configs_availability"),
        one_of("require_approval", APPROVALS, name="ck_mcp_server_configs_require_approval"),
        one_of("access", ACCESSES, name="ck_mcp_server_configs_access"),
        one_of("tool_changes", TOOL_CHANGES, name="ck_mcp_server_configs_tool_changes"),
        one_of("oauth2_auth_method", ("", *AUTH_METHODS), name="ck_mcp_server_configs_auth_method"),
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
    oauth2_issuer: str = _word()
    """As its metadata says; empty: configured by hand without it."""
    oauth2_issuer_set: bool = _flag()
    """An administrator has named it: no other is accepted."""
    oauth2_resource: str = _word()
    """For RFC 8707; empty: the canonical URL."""
    oauth2_resource_set: bool = _flag()
    """Not as discovery found it."""
    oauth2_send_resource: bool = _flag(default=True)
    oauth2_auth_method: str = _word()
    oauth2_client_source: str = _word()
    oauth2_registration_url: str = _word()
    oauth2_sends_issuer: bool = _flag()
    oauth2_client_key_id: str = _word()
    """Of the private key that is in `oauth2_client_secret` with `private_key_jwt`."""
    oidc_audience: str = _word()
    """`user_oidc`: for whom the login's token is exchanged; empty: it is sent as it is."""
    discovered_at: Instant = timestamp()
    oauth2_looked_at: Instant = timestamp()
    """When it was last looked whether its authorization server is still the same."""
    oauth2_renewed_at: Instant = timestamp()
    """When it was last tried, by itself, to register another client."""
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
    access: str = Field(default="everyone", sa_column_kwargs={"server_default": "everyone"})
    """`groups`: only for members of the groups in `mcp_server_groups`."""
    required_auth: bool = _flag()
    tool_changes: str = Field(default="follow", sa_column_kwargs={"server_default": "follow"})
    """What happens when a tool is no longer what was pinned."""
    signing_secret: bytes | None = Field(default=None, sa_column=_secret())
    signing_secret_key_id: str | None = None
    tool_timeout_seconds: int = 60
    version: int = Field(
        default=1, sa_column=Column(BigInteger, nullable=False, server_default="1")
    )
    created_by: UUID | None = Field(default=None, foreign_key="users.id", ondelete="SET NULL")
    updated_by: UUID | None = Field(default=None, foreign_key="users.id", ondelete="SET NULL")
    created_at: Instant = timestamp(now=True)
    updated_at: Instant = timestamp(now=True)


class McpServerGroup(Row, table=True):
    """A group whose members may use a server that is restricted to groups."""

    __tablename__ = "mcp_server_groups"

    server_id: UUID = Field(
        foreign_key="mcp_server_configs.id", ondelete="CASCADE", primary_key=True
    )
    group_id: UUID = Field(
        foreign_key="groups.id", ondelete="CASCADE", primary_key=True, index=True
    )


class ToolPin(Row, table=True):
    """A tool as it was when it was pinned, and what its server says now if that differs.

    Definitions are as `chatd.core.pins.definition_of` writes them. An empty hash and `{}`: a tool
    that is new, and that nobody has accepted yet.
    """

    __tablename__ = "tool_pins"

    server_id: UUID = Field(
        foreign_key="mcp_server_configs.id", ondelete="CASCADE", primary_key=True
    )
    tool_name: str = Field(primary_key=True)
    definition: dict[str, Any] = json("{}")
    definition_hash: str
    changed: dict[str, Any] | None = json("null", nullable=True)
    changed_hash: str | None = None
    changed_at: Instant = timestamp()
    seen_hashes: list[str] = Field(default_factory=list, sa_column=_names())
    """Definitions that were followed: users of one server may see different ones."""
    pinned_by: UUID | None = None
    """None: pinned by itself, when the tool was first seen."""
    pinned_at: Instant = timestamp(now=True)


class Connection(Row, table=True):
    """One connect or disconnect of a worker to an MCP server. Ids without foreign keys: the line
    outlives what it is about. Append-only by a trigger; see `chatd.store.audit.unseal`."""

    __tablename__ = "connection_log"
    __table_args__ = (
        one_of("outcome", OUTCOMES, name="ck_connection_log_outcome"),
        Index("ix_connection_log_server", "server_id", "at"),
        Index(
            "ix_connection_log_user",
            "user_id",
            "at",
            postgresql_where=text("user_id IS NOT NULL"),
        ),
    )

    id: int | None = Field(default=None, sa_column=Column(BigInteger, primary_key=True))
    at: Instant = timestamp(now=True, index=True)
    server_id: UUID
    server_slug: str
    user_id: UUID | None = None
    """None: a connection that is every user's."""
    process: str
    outcome: str
    error_code: str = ""
    duration_ms: int = 0
    tool_count: int | None = None


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
    claims_paused: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    """Workers finish what they have and claim nothing."""
