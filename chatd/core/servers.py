"""An MCP server as configured, and whose credentials a connection to it carries."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, NotRequired, TypedDict
from uuid import UUID

from pydantic import BaseModel, Field, SecretStr

from chatd.core.oauth import ReauthReason

Transport = Literal["streamable_http", "sse"]
Availability = Literal["force_on", "default_on", "default_off"]
AuthType = Literal["none", "oauth2", "api_key", "custom_headers", "user_oidc", "client_credentials"]

Approval = Literal["always", "never", "unless_read_only"]
"""Whether a person is asked before a call; a read-only hint counts only from a trusted server."""

ToolPlanMode = Literal["allow", "deny", "inherit"]
"""Whether a tool may be used while planning; `inherit`: as its server."""

Access = Literal["everyone", "groups"]

ToolChanges = Literal["follow", "hold", "quarantine"]
"""What becomes of a tool that is no longer as it was pinned: offered as it is now, offered as it
was, not offered."""

DEFAULT_TOOL_TIMEOUT_S = 60


class ToolSetting(TypedDict):
    """What an administrator set for a single tool; absent: as its server."""

    require_approval: NotRequired[Approval]
    plan_mode: NotRequired[ToolPlanMode]


class NoAuth(BaseModel):
    type: Literal["none"] = "none"

    def headers(self) -> dict[str, str]:
        return {}


class ApiKeyAuth(BaseModel):
    type: Literal["api_key"] = "api_key"
    header: str
    value: SecretStr

    def headers(self) -> dict[str, str]:
        return {self.header: self.value.get_secret_value()}


class CustomHeadersAuth(BaseModel):
    type: Literal["custom_headers"] = "custom_headers"
    values: dict[str, SecretStr]

    def headers(self) -> dict[str, str]:
        return {name: value.get_secret_value() for name, value in self.values.items()}


class UserAuth(BaseModel):
    """Each user's own token, which the token service hands out; policy drops a server without."""

    type: Literal["oauth2", "user_oidc"]
    connection_id: UUID | None = None
    """The turn owner's row of `oauth_tokens`; None: never connected, or not any more."""
    needs_reauth: ReauthReason | None = None
    audience: str = ""
    """`user_oidc`: for whom the login's token is exchanged (RFC 8693); empty: sent as it is."""

    @property
    def connected(self) -> bool:
        return self.connection_id is not None and self.needs_reauth is None

    def headers(self) -> dict[str, str]:
        return {}


class ServiceAuth(BaseModel):
    """The deployment's own token (RFC 6749, section 4.4), the same for every user."""

    type: Literal["client_credentials"] = "client_credentials"

    def headers(self) -> dict[str, str]:
        return {}


class UnusableAuth(BaseModel):
    """Credentials that cannot be read or used: policy drops the server, it is never tried."""

    type: Literal["unusable"] = "unusable"

    def headers(self) -> dict[str, str]:
        raise ValueError("the server's credentials cannot be used")


McpAuth = Annotated[
    NoAuth | ApiKeyAuth | CustomHeadersAuth | UserAuth | ServiceAuth | UnusableAuth,
    Field(discriminator="type"),
]
"""The union is the registry: a new auth type is a new member."""


@dataclass(frozen=True, slots=True)
class McpServer:
    """One configured server, secrets decrypted. `version` moves with every change of the row."""

    id: UUID
    slug: str
    display_name: str
    transport: Transport
    url: str
    auth: McpAuth
    version: int
    enabled: bool = True
    availability: Availability = "default_off"
    tool_allow_list: frozenset[str] = frozenset()
    tool_deny_list: frozenset[str] = frozenset()
    model_intent: bool = False
    allow_in_plan_mode: bool = False
    forward_coder_headers: bool = False
    trust_annotations: bool = False
    """The admin vouches for the server's read-only and idempotent hints."""
    require_approval: Approval = "never"
    tool_settings: Mapping[str, ToolSetting] = field(default_factory=dict[str, ToolSetting])
    """By original tool name."""
    tool_timeout_s: float = DEFAULT_TOOL_TIMEOUT_S
    access: Access = "everyone"
    group_ids: frozenset[UUID] = frozenset()
    """Whose members may use it, when `access` is `groups`; none: nobody."""
    required_auth: bool = False
    """Forced on and without this user's credentials, it fails the turn."""
    tool_changes: ToolChanges = "follow"
    signing_secret: SecretStr | None = None
    """Signs the identity headers."""

    def in_plan(self, tool: str) -> bool:
        """Whether a tool may be used while planning: its own setting, else the server's."""
        match self.tool_settings.get(tool, {}).get("plan_mode", "inherit"):
            case "allow":
                return True
            case "deny":
                return False
            case "inherit":
                return self.allow_in_plan_mode

    def sets_plan(self, tool: str) -> bool:
        """Whether the tool has a setting of its own for that."""
        return self.tool_settings.get(tool, {}).get("plan_mode", "inherit") != "inherit"


@dataclass(frozen=True, slots=True)
class Principal:
    """On whose behalf a server is connected: the key of sessions and tool lists, never a token.

    `shared` when every user's connection is the same (none, api_key, custom_headers, client
    credentials), else the user's connection; with identity headers also the user and the chat.
    """

    key: str
    user_id: UUID | None = None
    chat_id: UUID | None = None
    """The root chat, when identity headers are forwarded."""
    subchat_id: UUID | None = None
    connection_id: UUID | None = None
    """Whose token goes with it."""


SHARED = Principal(key="shared")


def principal_of(
    server: McpServer, *, user_id: UUID, chat_id: UUID, root_chat_id: UUID
) -> Principal:
    """Whose connection a turn uses for this server."""
    if not server.forward_coder_headers:
        return visitor(server, user_id)
    return Principal(
        key=f"user:{user_id}:chat:{chat_id}{_connection(server)}",
        user_id=user_id,
        chat_id=root_chat_id,
        subchat_id=chat_id if chat_id != root_chat_id else None,
        connection_id=_connection_id(server),
    )


def visitor(server: McpServer, user_id: UUID) -> Principal:
    """A user's connection outside of any chat."""
    if not server.forward_coder_headers and not isinstance(server.auth, UserAuth):
        return SHARED
    return Principal(
        key=f"user:{user_id}{_connection(server)}",
        user_id=user_id,
        connection_id=_connection_id(server),
    )


def _connection_id(server: McpServer) -> UUID | None:
    return server.auth.connection_id if isinstance(server.auth, UserAuth) else None


def _connection(server: McpServer) -> str:
    """A new grant is another connection: what the former one was shown is not shown to it."""
    return f":token:{_connection_id(server)}" if isinstance(server.auth, UserAuth) else ""


def user_of(principal_key: str) -> UUID | None:
    """The user of a principal that is one user's; None for one that is shared."""
    kind, _, rest = principal_key.partition(":")
    return UUID(rest[:36]) if kind == "user" else None
