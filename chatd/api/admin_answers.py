"""What the API answers about models, providers and MCP servers, for its documentation."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from chatd.api.answers import CONNECT_URL
from chatd.core.models import EffortOptions, ModelOptions
from chatd.core.oauth import AuthMethod, ClientSource, ReauthReason
from chatd.core.servers import (
    Access,
    Approval,
    AuthType,
    Availability,
    ToolChanges,
    Transport,
)

Json = dict[str, Any]


class ModelChoice(BaseModel):
    id: UUID
    provider: str
    model: str
    display_name: str
    is_default: bool
    context_limit: int
    reasoning_effort: EffortOptions | None


class ProviderChoice(BaseModel):
    id: UUID
    provider: str
    display_name: str
    available: bool
    unavailable_reason: Literal["missing_api_key"] | None
    models: list[ModelChoice]


class Choices(BaseModel):
    providers: list[ProviderChoice]


class Provider(BaseModel):
    id: UUID
    provider: str
    display_name: str
    base_url: str
    enabled: bool
    has_api_key: bool
    max_concurrent_turns: int | None = Field(description="In the whole fleet; null: no limit.")
    source: Literal["database"]
    created_at: datetime
    updated_at: datetime


class ModelConfig(BaseModel):
    id: UUID
    provider_id: UUID
    provider: str
    model: str
    display_name: str
    enabled: bool
    is_default: bool
    context_limit: int
    compression_threshold: int
    options: ModelOptions
    created_by: UUID | None
    created_at: datetime
    updated_at: datetime


class McpServer(BaseModel):
    """Secrets are never answered, only whether there is one. Members get some fields empty."""

    id: UUID
    display_name: str
    slug: str
    description: str
    icon_url: str = Field(description="For members a path of ours that answers with the image.")
    transport: Transport | Literal[""] = Field(description="Empty for members.")
    url: str
    auth_type: AuthType
    oauth2_client_id: str
    has_oauth2_secret: bool
    oauth2_auth_url: str
    oauth2_token_url: str
    oauth2_revocation_url: str
    oauth2_scopes: str
    oauth2_auth_method: AuthMethod | Literal[""] = Field(
        description="Empty: `client_secret_basic` with a secret, else `none`."
    )
    oauth2_client_key_id: str
    oauth2_issuer: str = Field(description="Empty: configured by hand.")
    oauth2_issuer_set: bool = Field(description="By an administrator; false: as discovered.")
    oauth2_resource: str = Field(description="Empty: the server's URL without query.")
    oauth2_resource_set: bool = Field(description="By an administrator; false: as discovered.")
    oauth2_send_resource: bool
    oauth2_client_source: ClientSource | Literal[""]
    oauth2_registration_url: str
    discovered_at: datetime | None
    oidc_audience: str
    api_key_header: str
    has_api_key: bool
    has_custom_headers: bool
    has_signing_secret: bool
    tool_allow_list: list[str]
    tool_deny_list: list[str]
    availability: Availability
    enabled: bool
    model_intent: bool
    allow_in_plan_mode: bool
    forward_coder_headers: bool
    trust_annotations: bool
    require_approval: Approval
    tool_settings: Json
    tool_timeout_seconds: int
    unknown_tools: list[str] = Field(
        description="Named in a list or in `tool_settings`, and unknown to the server."
    )
    access: Access
    group_ids: list[UUID] = Field(description="Empty for members.")
    required_auth: bool
    tool_changes: ToolChanges
    auth_connected: bool = Field(description="Calls on your behalf carry what the server asks for.")
    needs_reauth: ReauthReason | None = Field(
        description="Why you have to connect again; null: you do not, or never have."
    )
    connect_url: str | None = Field(description=f"{CONNECT_URL} Null: there is nothing to connect.")
    version: int
    created_by: UUID | None
    updated_by: UUID | None
    created_at: datetime
    updated_at: datetime
