"""What administrators send about MCP servers."""

from collections.abc import Collection
from dataclasses import fields
from typing import Any
from uuid import UUID

from pydantic import ConfigDict, Field, SecretStr

from chatd.api.admin import AdminBody, Secret, Url
from chatd.api.fields import Flag
from chatd.api.server_auth import MANUAL, settle, without_credentials
from chatd.api.server_fields import (
    Audience,
    AuthMethodName,
    ClientId,
    ClientSecret,
    DisplayName,
    GroupIds,
    HeaderName,
    Headers,
    Icon,
    IssuerName,
    KeyId,
    LongText,
    OauthUrl,
    ResourceName,
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
from chatd.store.server_settings import ServerSettings
from chatd.store.server_views import OVERRIDES, View

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

    id: UUID | None = Field(
        default=None,
        description="Only where a discovery that failed has named one: an application was then"
        " registered by hand with the redirect URI of this id.",
    )
    display_name: DisplayName
    slug: Slug
    transport: Transport
    url: Url
    auth_type: AuthType
    availability: Availability
    description: LongText = ""
    icon_url: Icon = Field(default="", description="https, or a data URL of at most 64 KiB.")
    oauth2_client_id: ClientId = Field(
        default="",
        description="With `oauth2_auth_url` and `oauth2_token_url`, or none of the three: then the"
        " authorization server is discovered, and a client registered there.",
    )
    oauth2_client_secret: ClientSecret | None = Field(
        default=None, description="For `private_key_jwt` the private key, in PEM."
    )
    oauth2_auth_url: OauthUrl = ""
    oauth2_token_url: OauthUrl = ""
    oauth2_revocation_url: OauthUrl = ""
    oauth2_scopes: Scopes = Field(
        default="", description="With spaces between them; empty: those that are discovered."
    )
    oauth2_auth_method: AuthMethodName = Field(
        default="", description="Empty: as the secret allows."
    )
    oauth2_client_key_id: KeyId = Field(
        default="", description="Of the private key, if its authorization server wants it named."
    )
    oauth2_issuer: IssuerName = Field(
        default="",
        description="`oauth2`: the only issuer that discovery and answers with `iss` (RFC 9207) may"
        " name, letter by letter; empty: the one where the metadata lies. `client_credentials`:"
        " whom a client assertion is for (RFC 7523bis); empty: the token URL.",
    )
    oauth2_resource: ResourceName = Field(
        default="",
        description="What tokens are asked for (RFC 8707); empty: what the server's metadata names,"
        " else its URL without query.",
    )
    oauth2_send_resource: Flag = Field(
        default=True, description="False where the authorization server refuses `resource`."
    )
    oidc_audience: Audience = Field(
        default="",
        description="`user_oidc`: the login's token is exchanged for one of this audience"
        " (RFC 8693); empty: it is sent itself.",
    )
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
        values["access"] = self.access or default_access
        return _settings(values, self.given().keys() & set(_NAMES), {})


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
    oauth2_client_secret: ClientSecret | None = None
    oauth2_auth_url: OauthUrl | None = None
    oauth2_token_url: OauthUrl | None = None
    oauth2_revocation_url: OauthUrl | None = None
    oauth2_scopes: Scopes | None = None
    oauth2_auth_method: AuthMethodName | None = None
    oauth2_client_key_id: KeyId | None = None
    oauth2_issuer: IssuerName | None = None
    oauth2_resource: ResourceName | None = None
    oauth2_send_resource: Flag | None = None
    oidc_audience: Audience | None = None
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
        kept |= {name: "" for name in OVERRIDES if not stored[f"{name}_set"]}
        kept["group_ids"] = [UUID(group_id) for group_id in stored["group_ids"]]
        changes = {name: value for name, value in self.given().items() if name in _NAMES}
        if changes.get("auth_type", stored["auth_type"]) != stored["auth_type"]:
            kept = without_credentials(kept)
            changes = {"oauth2_client_secret": SecretStr("")} | changes
        return _settings(kept | changes, changes, stored)

    def moves_discovered(self, stored: View) -> bool:
        """Its URL is another one, and its client was found at the old one."""
        moved = self.url is not None and self.url != stored["url"]
        return moved and not self._by_hand() and bool(stored["discovered_at"])

    def names_another(self, stored: View) -> bool:
        """What was found is not what counts any more, or has to be found again."""
        changes = self.given()
        named = changes.get("oauth2_issuer", "") not in ("", stored["oauth2_issuer"])
        emptied = any(changes.get(name) == "" and stored[f"{name}_set"] for name in OVERRIDES)
        found = stored["oauth2_client_source"] in ("registered", "metadata_document")
        return found and not self._by_hand() and (named or emptied)

    def _by_hand(self) -> bool:
        return not self.model_fields_set.isdisjoint((*MANUAL, "auth_type"))


_NAMES = tuple(field.name for field in fields(ServerSettings))


def _settings(values: dict[str, Any], given: Collection[str], stored: View) -> ServerSettings:
    for name in ("tool_allow_list", "tool_deny_list", "group_ids"):
        values[name] = tuple(values[name])
    settings = settle(ServerSettings(**values), given, stored)
    _check_lists(settings)
    return settings


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
