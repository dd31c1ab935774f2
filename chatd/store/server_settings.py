"""An MCP server as an administrator configures it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from pydantic import SecretStr

from chatd.core.oauth import AuthMethod
from chatd.core.servers import (
    Access,
    Approval,
    AuthType,
    Availability,
    ToolChanges,
    ToolSetting,
    Transport,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What an administrator sets, checked as a whole. A secret that is None stays as it is."""

    display_name: str
    slug: str
    transport: Transport
    url: str
    auth_type: AuthType
    availability: Availability
    description: str = ""
    icon_url: str = ""
    oauth2_client_id: str = ""
    oauth2_client_secret: SecretStr | None = None
    oauth2_auth_url: str = ""
    oauth2_token_url: str = ""
    oauth2_revocation_url: str = ""
    oauth2_scopes: str = ""
    oauth2_auth_method: AuthMethod | Literal[""] = ""
    oauth2_client_key_id: str = ""
    oauth2_issuer: str = ""  # whom to expect; for `oauth2` empty: whoever is discovered
    oauth2_resource: str = ""  # empty: as discovered, else the server's canonical URL
    oauth2_send_resource: bool = True
    oidc_audience: str = ""
    api_key_header: str = ""
    api_key_value: SecretStr | None = None
    custom_headers: Mapping[str, SecretStr] | None = None
    tool_allow_list: tuple[str, ...] = ()
    tool_deny_list: tuple[str, ...] = ()
    enabled: bool = False
    model_intent: bool = False
    allow_in_plan_mode: bool = False
    forward_coder_headers: bool = False
    signing_secret: SecretStr | None = None
    trust_annotations: bool = False
    require_approval: Approval = "never"
    tool_settings: Mapping[str, ToolSetting] = field(default_factory=dict[str, ToolSetting])
    tool_timeout_seconds: int = 60
    access: Access = "everyone"
    group_ids: tuple[UUID, ...] = ()
    required_auth: bool = False
    tool_changes: ToolChanges = "follow"
