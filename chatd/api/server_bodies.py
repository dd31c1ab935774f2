"""What administrators send about MCP servers."""

import re
from dataclasses import fields
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, StrictInt, StringConstraints

from chatd.api.admin import AdminBody, Secret, Url
from chatd.api.fields import Flag, refusal, says
from chatd.core.errors import BadRequest, Validation
from chatd.core.servers import (
    DEFAULT_TOOL_TIMEOUT_S,
    Approval,
    AuthType,
    Availability,
    Transport,
)
from chatd.core.tools import JsonObject
from chatd.store.servers import ServerSettings, View

MAX_TOOL_NAMES = 500
MAX_HEADERS = 50
MAX_TIMEOUT_S = 3600

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
"""RFC 9110, section 5.6.2: what a header's name may be."""

_OURS = {
    "host",
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
    "accept",
    "mcp-session-id",
    "mcp-protocol-version",
}
"""The transport writes these itself."""


def check_header(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise refusal("Invalid header name.")
    if name.lower() in _OURS:
        raise refusal(f"The header {name} cannot be configured.")
    return name


def _header_or_nothing(name: str) -> str:
    return check_header(name) if name else ""


def _headers(values: dict[str, SecretStr]) -> dict[str, SecretStr]:
    """Names are case-insensitive, so each may be there once."""
    kept = {check_header(name.strip()): value for name, value in values.items()}
    if len({name.lower() for name in kept}) < len(values):
        raise refusal("A header is there twice.")
    if any(not value.get_secret_value() for value in kept.values()):
        raise refusal("A header needs a value.")
    return kept


def _names(values: list[str]) -> list[str]:
    """Trimmed, without empties and repetitions, in the order given."""
    return list(dict.fromkeys(name for value in values if (name := value.strip())))


def _icon(value: str) -> str:
    if value and not value.startswith(("https://", "http://", "/")):
        raise refusal("An icon is a path, or a URL that begins with https:// or http://.")
    return value


DisplayName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Slug = Annotated[
    str,
    StringConstraints(strip_whitespace=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"),
    says("Invalid slug: 1 to 64 of A-Z a-z 0-9 _ -, beginning with a letter or a digit."),
]
LongText = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2000)]
Icon = Annotated[LongText, AfterValidator(_icon)]
HeaderName = Annotated[
    str, StringConstraints(strip_whitespace=True), AfterValidator(_header_or_nothing)
]
Headers = Annotated[dict[str, Secret], Field(max_length=MAX_HEADERS), AfterValidator(_headers)]
ToolName = Annotated[str, StringConstraints(max_length=256)]
ToolNames = Annotated[
    list[ToolName],
    Field(max_length=MAX_TOOL_NAMES, description="Exact names, as the server lists them."),
    AfterValidator(_names),
]


class ToolSettingBody(AdminBody):
    """What differs for a single tool."""

    require_approval: Approval | None = None


def _tool_settings(given: dict[str, ToolSettingBody]) -> dict[str, JsonObject]:
    settings = {name: tool.model_dump(exclude_none=True) for name, tool in given.items()}
    return {name: setting for name, setting in settings.items() if setting}


ToolSettings = Annotated[
    dict[ToolName, ToolSettingBody],
    Field(max_length=MAX_TOOL_NAMES),
    AfterValidator(_tool_settings),
]
Timeout = Annotated[StrictInt, Field(ge=1, le=MAX_TIMEOUT_S)]


class ServerBody(AdminBody):
    """A new MCP server config. Fields of other auth types than its own are not kept."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
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
                }
            ]
        }
    )

    display_name: DisplayName
    slug: Slug
    transport: Transport
    url: Url
    auth_type: AuthType
    availability: Availability
    description: LongText = ""
    icon_url: Icon = ""
    api_key_header: HeaderName = ""
    api_key_value: Secret | None = None
    custom_headers: Headers | None = None
    tool_allow_list: ToolNames = Field(default_factory=list, description="Empty: every tool.")
    tool_deny_list: ToolNames = Field(default_factory=list, description="Always wins.")
    enabled: Flag = False
    model_intent: Flag = False
    allow_in_plan_mode: Flag = False
    forward_coder_headers: Flag = False
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

    def to_settings(self) -> ServerSettings:
        """Raises `BadRequest`."""
        return _settings({name: getattr(self, name) for name in _NAMES})


class ServerPatch(AdminBody):
    """Changes: absent and null leave a field, "", [] and {} empty it. A new `auth_type` forgets
    the credentials of the old one."""

    display_name: DisplayName | None = None
    slug: Slug | None = None
    transport: Transport | None = None
    url: Url | None = None
    auth_type: AuthType | None = None
    availability: Availability | None = None
    description: LongText | None = None
    icon_url: Icon | None = None
    api_key_header: HeaderName | None = None
    api_key_value: Secret | None = None
    custom_headers: Headers | None = None
    tool_allow_list: ToolNames | None = None
    tool_deny_list: ToolNames | None = None
    enabled: Flag | None = None
    model_intent: Flag | None = None
    allow_in_plan_mode: Flag | None = None
    forward_coder_headers: Flag | None = None
    trust_annotations: Flag | None = None
    require_approval: Approval | None = None
    tool_settings: ToolSettings | None = None
    tool_timeout_seconds: Timeout | None = None

    def to_settings(self, stored: View) -> ServerSettings:
        """The stored config with the changes, checked as a whole. Raises `BadRequest`."""
        kept = {name: stored[name] for name in _NAMES if name in stored}
        return _settings(kept | self.given(), stored)


_NAMES = tuple(field.name for field in fields(ServerSettings))
_SECRETS = ("api_key_value", "custom_headers")


def secrets_in(body: ServerBody | ServerPatch) -> tuple[str, ...]:
    """The secret fields that were sent, for the audit log."""
    return tuple(name for name in _SECRETS if getattr(body, name) is not None)


def _settings(values: dict[str, Any], stored: View | None = None) -> ServerSettings:
    values["tool_allow_list"] = tuple(values["tool_allow_list"])
    values["tool_deny_list"] = tuple(values["tool_deny_list"])
    settings = ServerSettings(**values)
    known = stored or {}
    match settings.auth_type:
        case "api_key":
            has_key = _has(settings.api_key_value, known.get("has_api_key"))
            _require("api_key_header", settings.api_key_header, "api_key")
            _require("api_key_value", has_key, "api_key")
        case "custom_headers":
            has_headers = _has(settings.custom_headers, known.get("has_custom_headers"))
            _require("custom_headers", has_headers, "custom_headers")
        case "none":
            pass
        case "oauth2" | "user_oidc":
            raise BadRequest(f"The auth type {settings.auth_type} is not available yet.")
    return settings


def _has(given: object, stored: object) -> bool:
    """Whether there is a secret after the change: what was given counts, else what is stored."""
    if given is None:
        return bool(stored)
    return bool(given.get_secret_value() if isinstance(given, SecretStr) else given)


def _require(field: str, present: object, auth_type: str) -> None:
    if not present:
        raise BadRequest(
            f"The auth type {auth_type} needs {field}.",
            validations=[Validation(field=field, detail="Required by the auth type.")],
        )
