"""The fields of MCP server configs: what each may hold, whatever the others say."""

import re
from ipaddress import ip_address
from typing import Annotated, Literal
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, Field, SecretStr, StrictInt, StringConstraints

from chatd.api.admin import (
    MAX_SECRET,
    MAX_URL,
    AdminBody,
    Secret,
    check_secret,
    check_url,
)
from chatd.api.fields import MAX_BIGINT, refusal, says
from chatd.api.icon_cache import DATA_TYPES, MAX_DATA_BYTES, read_data_url
from chatd.core.oauth import AuthMethod
from chatd.core.servers import Approval, ToolPlanMode
from chatd.core.tools import JsonObject

MAX_TOOL_NAMES = 500
MAX_HEADERS = 50
MAX_GROUPS = 100
MAX_TIMEOUT_S = 3600

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
"""RFC 9110, section 5.6.2: what a header's name may be."""

_SCOPES = re.compile(r"[!#-\[\]-~]+( [!#-\[\]-~]+)*")
"""RFC 6749, section 3.3."""

_OURS = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "last-event-id",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OURS_FROM = ("mcp-", "proxy-", "x-coder-signature")
"""The transport, the tracing and the signing write these themselves, or must not have them."""


def _check_header(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise refusal("Invalid header name.")
    if name.lower() in _OURS or name.lower().startswith(_OURS_FROM):
        raise refusal(f"The header {name} cannot be configured.")
    return name


def _header_or_nothing(name: str) -> str:
    return _check_header(name) if name else ""


def _headers(values: dict[str, SecretStr]) -> dict[str, SecretStr]:
    """Names are case-insensitive, so each may be there once."""
    kept = {_check_header(name.strip()): value for name, value in values.items()}
    if len({name.lower() for name in kept}) < len(values):
        raise refusal("A header is there twice.")
    if any(not value.get_secret_value() for value in kept.values()):
        raise refusal("A header needs a value.")
    return kept


def _names(values: list[str]) -> list[str]:
    """Trimmed, without empties and repetitions, in the order given."""
    return list(dict.fromkeys(name for value in values if (name := value.strip())))


def _icon(value: str) -> str:
    if value.startswith("https://") and len(value) <= MAX_URL:
        return check_url(value)
    icon = read_data_url(value)
    if value and icon is None:
        kinds = ", ".join(kind.removeprefix("image/") for kind in DATA_TYPES)
        raise refusal(f"An icon is an https:// URL, or a base64 data: URL of an image ({kinds}).")
    if icon is not None and len(icon.data) > MAX_DATA_BYTES:
        raise refusal(f"An icon has at most {MAX_DATA_BYTES // 1024} KiB.")
    return value


def _secure_url(value: str) -> str:
    """Codes and tokens travel there."""
    if not value:
        return value
    url = urlsplit(check_url(value))
    if url.scheme != "https" and not _is_loopback(url.hostname or ""):
        raise refusal("An OAuth URL must begin with https://, unless it is a loopback address.")
    return value


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _scopes(value: str) -> str:
    scopes = " ".join(value.split())
    if scopes and not _SCOPES.fullmatch(scopes):
        raise refusal("Invalid scopes: names with spaces between them.")
    return scopes


def _visible(what: str) -> AfterValidator:
    def check(value: str) -> str:
        if not (value.isascii() and (value.isprintable() or not value)):
            raise refusal(f"{what} must be printable ASCII.")
        return value

    return AfterValidator(check)


def _resource(value: str) -> str:
    """RFC 8707, section 2; not every one is an https URL."""
    if value and (not urlsplit(value).scheme or "#" in value or " " in value):
        raise refusal("A resource is an absolute URI without a fragment.")
    return value


def _client_secret(value: SecretStr) -> SecretStr:
    """A private key has lines; whatever else it is goes into a header or a form."""
    text = value.get_secret_value().strip().replace("\r\n", "\n")
    if not text.startswith("-----BEGIN "):
        return check_secret(value)
    if len(text) > MAX_SECRET or not (text.isascii() and text.replace("\n", "").isprintable()):
        raise refusal("Invalid private key: PEM is expected.")
    return SecretStr(text + "\n")


DisplayName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Slug = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, max_length=64, pattern=r"^[A-Za-z0-9](_?[A-Za-z0-9-])*$"
    ),
    says(
        "Invalid slug: 1 to 64 of A-Z a-z 0-9 _ -, beginning with a letter or a digit, "
        "without __ and no _ at its end."
    ),
]
LongText = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2000)]
Icon = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=2 * MAX_DATA_BYTES),
    AfterValidator(_icon),
]
OauthUrl = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=MAX_URL),
    AfterValidator(_secure_url),
]
Scopes = Annotated[LongText, AfterValidator(_scopes)]
ClientId = Annotated[LongText, _visible("A client ID")]
ClientSecret = Annotated[SecretStr, AfterValidator(_client_secret)]
KeyId = Annotated[LongText, _visible("A key ID")]
Audience = Annotated[LongText, _visible("An audience")]
IssuerName = Annotated[LongText, _visible("An issuer")]
ResourceName = Annotated[LongText, _visible("A resource"), AfterValidator(_resource)]
AuthMethodName = AuthMethod | Literal[""]
HeaderName = Annotated[
    str, StringConstraints(strip_whitespace=True), AfterValidator(_header_or_nothing)
]
Headers = Annotated[dict[str, Secret], Field(max_length=MAX_HEADERS), AfterValidator(_headers)]
GroupIds = Annotated[
    list[UUID],
    Field(
        max_length=MAX_GROUPS,
        description="Whose members may use it when `access` is `groups`; none: nobody.",
    ),
]
ToolName = Annotated[str, StringConstraints(max_length=256)]
ToolNames = Annotated[
    list[ToolName],
    Field(max_length=MAX_TOOL_NAMES, description="Exact names, as the server lists them."),
    AfterValidator(_names),
]


class ToolSettingBody(AdminBody):
    """What differs for a single tool."""

    require_approval: Approval | None = None
    plan_mode: ToolPlanMode | None = None


def _tool_settings(given: dict[str, ToolSettingBody]) -> dict[str, JsonObject]:
    settings = {name.strip(): tool.model_dump(exclude_none=True) for name, tool in given.items()}
    if len(settings) < len(given):
        raise refusal("A tool is there twice.")
    if "" in settings:
        raise refusal("A tool has a name.")
    return {name: setting for name, setting in settings.items() if setting}


ToolSettings = Annotated[
    dict[ToolName, ToolSettingBody],
    Field(max_length=MAX_TOOL_NAMES),
    AfterValidator(_tool_settings),
]
Timeout = Annotated[StrictInt, Field(ge=1, le=MAX_TIMEOUT_S)]
Version = Annotated[
    StrictInt,
    Field(ge=1, le=MAX_BIGINT, description="The one that you read; 409 when there is a newer one."),
]
