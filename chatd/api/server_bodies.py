"""What administrators send about MCP servers."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any
from uuid import UUID

from pydantic import ConfigDict, Field, SecretStr

from chatd.api.admin import AdminBody, Secret, Url
from chatd.api.fields import Flag
from chatd.api.server_fields import (
    ClientId,
    DisplayName,
    GroupIds,
    HeaderName,
    Headers,
    Icon,
    LongText,
    OauthUrl,
    Scopes,
    Slug,
    Timeout,
    ToolNames,
    ToolSettings,
    Version,
)
from chatd.core.errors import BadRequest, Validation
from chatd.core.servers import (
    DEFAULT_TOOL_TIMEOUT_S,
    Access,
    Approval,
    AuthType,
    Availability,
    ToolChanges,
    Transport,
)
from chatd.store.server_views import OAUTH2, View
from chatd.store.servers import ServerSettings

_EXAMPLE: dict[str, Any] = {
    "display_name": "Tickets",
    "slug": "tickets",
    "transport": "streamable_http",
    "url": "https://tickets.example/mcp",
    "auth_type": "api_key",
    "api_key_header": "Authorization",
    "api_key_value": "Bearer …",
    "availability": "default_on",
    "enabled": True,
    "tool_deny_list": ["delete_ticket"],
    "tool_settings": {"close_ticket": {"require_approval": "always", "plan_mode": "deny"}},
}


class ServerBody(AdminBody):
    """A new MCP server config. Fields of other auth types than its own are not kept."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    display_name: DisplayName
    slug: Slug
    transport: Transport
    url: Url
    auth_type: AuthType
    availability: Availability
    description: LongText = ""
    icon_url: Icon = Field(default="", description="https, or a data URL of at most 64 KiB.")
    oauth2_client_id: ClientId = ""
    oauth2_client_secret: Secret | None = None
    oauth2_auth_url: OauthUrl = ""
    oauth2_token_url: OauthUrl = ""
    oauth2_revocation_url: OauthUrl = ""
    oauth2_scopes: Scopes = Field(default="", description="With spaces between them.")
    api_key_header: HeaderName = ""
    api_key_value: Secret | None = None
    custom_headers: Headers | None = None
    tool_allow_list: ToolNames = Field(default_factory=list, description="Empty: every tool.")
    tool_deny_list: ToolNames = Field(default_factory=list, description="Always wins.")
    enabled: Flag = False
    model_intent: Flag = False
    allow_in_plan_mode: Flag = False
    forward_coder_headers: Flag = False
    signing_secret: Secret | None = Field(
        default=None, description="Signs the headers that say who asks."
    )
    trust_annotations: Flag = Field(
        default=False, description="Believe the server's read-only and idempotent hints."
    )
    require_approval: Approval = Field(
        default="never",
        description="Ask the user before a call. `unless_read_only` needs `trust_annotations`.",
    )
    tool_settings: ToolSettings = Field(
        default_factory=dict, description="By exact tool name, instead of the server's own."
    )
    tool_timeout_seconds: Timeout = DEFAULT_TOOL_TIMEOUT_S
    access: Access | None = Field(
        default=None, description="Absent: as the deployment sets it for new servers."
    )
    group_ids: GroupIds = Field(default_factory=list[UUID])
    required_auth: Flag = Field(
        default=False, description="Forced on, it fails the turns of users who have not connected."
    )
    tool_changes: ToolChanges = Field(
        default="follow", description="What becomes of a tool whose definition changed."
    )

    def to_settings(self, default_access: Access = "everyone") -> ServerSettings:
        """Raises `BadRequest`."""
        values = {name: getattr(self, name) for name in _NAMES}
        return _settings(values | {"access": self.access or default_access}, {})


class ServerPatch(AdminBody):
    """Changes: absent and null leave a field, "", [] and {} empty it. A new `auth_type` forgets
    the credentials of the old one; those of another type than the resulting one are refused."""

    version: Version | None = None
    display_name: DisplayName | None = None
    slug: Slug | None = None
    transport: Transport | None = None
    url: Url | None = None
    auth_type: AuthType | None = None
    availability: Availability | None = None
    description: LongText | None = None
    icon_url: Icon | None = None
    oauth2_client_id: ClientId | None = None
    oauth2_client_secret: Secret | None = None
    oauth2_auth_url: OauthUrl | None = None
    oauth2_token_url: OauthUrl | None = None
    oauth2_revocation_url: OauthUrl | None = None
    oauth2_scopes: Scopes | None = None
    api_key_header: HeaderName | None = None
    api_key_value: Secret | None = None
    custom_headers: Headers | None = None
    tool_allow_list: ToolNames | None = None
    tool_deny_list: ToolNames | None = None
    enabled: Flag | None = None
    model_intent: Flag | None = None
    allow_in_plan_mode: Flag | None = None
    forward_coder_headers: Flag | None = None
    signing_secret: Secret | None = None
    trust_annotations: Flag | None = None
    require_approval: Approval | None = None
    tool_settings: ToolSettings | None = None
    tool_timeout_seconds: Timeout | None = None
    access: Access | None = None
    group_ids: GroupIds | None = None
    required_auth: Flag | None = None
    tool_changes: ToolChanges | None = None

    def to_settings(self, stored: View) -> ServerSettings:
        """The stored config with the changes, checked as a whole. Raises `BadRequest`."""
        kept = {name: stored[name] for name in _NAMES if name in stored}
        kept["group_ids"] = [UUID(group_id) for group_id in stored["group_ids"]]
        changes = {name: value for name, value in self.given().items() if name in _NAMES}
        settings = _settings(kept | changes, stored)
        _check_kept(settings, changes)
        return settings


_NAMES = tuple(field.name for field in fields(ServerSettings))

_SECRETS = {
    "oauth2_client_secret": "has_oauth2_secret",
    "api_key_value": "has_api_key",
    "custom_headers": "has_custom_headers",
    "signing_secret": "has_signing_secret",
}

_NEEDED = {
    "oauth2": ("oauth2_client_id", "oauth2_auth_url", "oauth2_token_url"),
    "api_key": ("api_key_header", "api_key_value"),
    "custom_headers": ("custom_headers",),
}


_OF_AUTH_TYPE = {
    **dict.fromkeys((*OAUTH2, "oauth2_client_secret"), "oauth2"),
    **dict.fromkeys(("api_key_header", "api_key_value"), "api_key"),
    "custom_headers": "custom_headers",
}
"""Which auth type each credential belongs to."""


def secrets_in(settings: ServerSettings) -> tuple[str, ...]:
    """The secrets that these settings set, for the audit log."""
    return tuple(
        name
        for name in _SECRETS
        if _filled(getattr(settings, name))
        and _OF_AUTH_TYPE.get(name, settings.auth_type) == settings.auth_type
    )


def _settings(values: dict[str, Any], stored: View) -> ServerSettings:
    for name in ("tool_allow_list", "tool_deny_list", "group_ids"):
        values[name] = tuple(values[name])
    settings = ServerSettings(**values)
    _check_credentials(settings, stored)
    _check_lists(settings)
    return settings


def _check_credentials(settings: ServerSettings, stored: View) -> None:
    auth_type = settings.auth_type
    needed = _NEEDED.get(auth_type, ())
    missing = [name for name in needed if not _present(settings, name, stored)]
    if missing:
        raise BadRequest(
            f"The auth type {auth_type} needs {_listed(missing)}.",
            validations=[
                Validation(field=name, detail=f"Required by the auth type {auth_type}.")
                for name in missing
            ],
        )


def _present(settings: ServerSettings, name: str, stored: View) -> bool:
    """After the change: of a secret what was given counts, else what is stored."""
    given = getattr(settings, name)
    return bool(stored.get(_SECRETS[name])) if given is None else _filled(given)


def _filled(value: Any) -> bool:
    return bool(value.get_secret_value() if isinstance(value, SecretStr) else value)


def _check_kept(settings: ServerSettings, changes: dict[str, Any]) -> None:
    """What would not be kept must not look as if it were."""
    auth_type = settings.auth_type
    lost = [
        name
        for name, value in changes.items()
        if _OF_AUTH_TYPE.get(name, auth_type) != auth_type and _filled(value)
    ]
    if lost:
        raise BadRequest(
            f"The auth type {auth_type} has no {_listed(lost)}.",
            validations=[
                Validation(field=name, detail=f"Of the auth type {_OF_AUTH_TYPE[name]}.")
                for name in lost
            ],
        )


def _check_lists(settings: ServerSettings) -> None:
    both = [name for name in settings.tool_allow_list if name in settings.tool_deny_list]
    if both:
        detail = f"In both lists: {', '.join(both)}"[:500]
        raise BadRequest(
            "A tool cannot be both allowed and denied.",
            detail=detail,
            validations=[
                Validation(field=name, detail=detail)
                for name in ("tool_allow_list", "tool_deny_list")
            ],
        )


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
