"""What an operator sets, from `CHATD_…` environment variables; read by entry points only."""

import base64
import binascii
import json
import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from chatd.core.errors import ChatdError
from chatd.core.logins import ClaimRules, Login
from chatd.core.oauth import Client

Network = IPv4Network | IPv6Network

_PREFIX = "CHATD_"
_KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_KEY_BYTES = 32


class SettingsError(ChatdError):
    """The settings are not usable; the message has one line a variable and no secret."""

    code = "settings"


def parse_keys(text: SecretStr) -> dict[str, bytes]:
    """`id:base64,id:base64` as keys by id, in order. Raises ValueError, which names ids only."""
    keys: dict[str, bytes] = {}
    for entry in filter(None, (part.strip() for part in text.get_secret_value().split(","))):
        key_id, colon, encoded = entry.partition(":")
        if not colon or not _KEY_ID.fullmatch(key_id):
            raise ValueError("each key is written id:base64, the id out of A-Z a-z 0-9 _ . -")
        if key_id in keys:
            raise ValueError(f"the key id {key_id} is there twice")
        keys[key_id] = _key(key_id, encoded)
    if not keys:
        raise ValueError("at least one key is needed")
    return keys


def _key(key_id: str, encoded: str) -> bytes:
    padded = encoded + "=" * (-len(encoded) % 4)
    try:
        key = base64.b64decode(padded.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"the key {key_id} is not base64") from None
    if len(key) != _KEY_BYTES:
        raise ValueError(f"the key {key_id} has {len(key)} bytes; it needs {_KEY_BYTES}")
    return key


def _keys(text: SecretStr) -> SecretStr:
    parse_keys(text)
    return text


def _split(value: Any) -> Any:
    """`a, b` as a list; an empty text is an empty list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _network(value: Any) -> Network:
    try:
        return ip_network(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a network such as 10.0.0.0/8") from None


def _origin(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in {"http", "https"} or value != f"{url.scheme}://{url.netloc}":
        raise ValueError(f"{value!r} is not an origin such as https://chat.example")
    return value


def _database_url(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text.startswith("postgres://"):
        text = text.replace("postgres://", "postgresql://", 1)
    if not text.startswith("postgresql://"):
        raise ValueError("expected postgresql://user:password@host/database")
    if "sslmode=" in text:
        raise ValueError("write ssl=require (or another mode) instead of sslmode=")
    return SecretStr(text)


def _redis_url(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("expected redis://:password@host/0, rediss://… or unix://…")
    return value


def _access_url(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in {"http", "https"} or not url.hostname or url.query or url.fragment:
        raise ValueError("expected a URL such as https://chatd.example")
    return url.geturl().rstrip("/")


def _issuer(value: str) -> str:
    """As it is: issuers are compared as texts."""
    url = urlsplit(value)
    if value and (url.scheme not in {"http", "https"} or not url.hostname or url.query):
        raise ValueError("expected the issuer's URL, such as https://id.example")
    return value


def _group_names(value: Any) -> Any:
    """`claim=group, …`, or a JSON object for values with commas in them. `*`: each by its name."""
    if not isinstance(value, str) or value.strip() == "*":
        return None if isinstance(value, str) else value
    if value.lstrip().startswith("{"):
        try:
            return tuple(json.loads(value).items())
        except ValueError:
            raise ValueError("is not JSON") from None
    pairs = [part.rpartition("=") for part in _split(value)]
    if not all(claim.strip() and group.strip() for claim, _, group in pairs):
        raise ValueError("expected claim=group, claim=group, or *")
    return tuple((claim.strip(), group.strip()) for claim, _, group in pairs)


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
GroupNames = Annotated[tuple[tuple[str, str], ...] | None, NoDecode, BeforeValidator(_group_names)]
Networks = Annotated[
    tuple[Annotated[Network, BeforeValidator(_network)], ...], NoDecode, BeforeValidator(_split)
]
Origins = Annotated[
    tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(_split)
]
Port = Annotated[int, Field(ge=0, le=65_535)]


class DatabaseSettings(BaseSettings):
    """What a command needs that only migrates, or looks after users."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_ignore_empty=True, hide_input_in_errors=True, frozen=True
    )

    database_url: Annotated[SecretStr, AfterValidator(_database_url)]
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class PushSettings(BaseSettings):
    """What a command tells the running processes by, if it is given."""

    model_config = DatabaseSettings.model_config

    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] | None = None


class StoreSettings(DatabaseSettings):
    """What a command needs that also reads or writes secrets."""

    encryption_keys: Annotated[SecretStr, AfterValidator(_keys)]
    """`id:base64,id:base64`, 32 bytes each: the first one writes, all of them read."""

    def keys(self) -> dict[str, bytes]:
        return parse_keys(self.encryption_keys)


class LoginSettings(BaseSettings):
    """Signing in with an OpenID provider. Without an issuer there is no login."""

    model_config = DatabaseSettings.model_config

    oidc_issuer: Annotated[str, AfterValidator(_issuer)] = ""
    oidc_client_id: Annotated[str, Field(validate_default=True)] = ""
    oidc_client_secret: SecretStr | None = None
    """For `private_key_jwt` the private key in PEM."""
    oidc_client_auth: Literal[
        "client_secret_basic", "client_secret_post", "private_key_jwt", "none"
    ] = "client_secret_basic"
    """Without a secret it is `none` in any case."""
    oidc_scopes: str = "openid profile email offline_access"
    oidc_prompt: str = ""
    oidc_username_claim: str = "preferred_username"
    oidc_role_claim: str = ""
    oidc_admin_values: Words = ()
    oidc_groups_claim: str = ""
    oidc_groups: GroupNames = None
    oidc_post_logout_redirect_uri: str = ""
    oidc_allow_signup: bool = True
    session_hours: float = Field(default=24, gt=0, le=24 * 366)

    @field_validator("oidc_client_id")
    @classmethod
    def _client_id(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("oidc_issuer") and not value:
            raise ValueError("is needed where CHATD_OIDC_ISSUER is set")
        return value

    def login_client(self) -> Client | None:
        """As whom logins are renewed."""
        login = self.login()
        return login.client if login is not None else None

    def login(self) -> Login | None:
        if not self.oidc_issuer:
            return None
        method = self.oidc_client_auth if self.oidc_client_secret is not None else "none"
        return Login(
            issuer=self.oidc_issuer,
            client=Client(self.oidc_client_id, method, self.oidc_client_secret),
            scopes=" ".join(dict.fromkeys(["openid", *self.oidc_scopes.split()])),
            prompt=self.oidc_prompt,
            rules=ClaimRules(
                username=self.oidc_username_claim,
                role=self.oidc_role_claim,
                admin_values=frozenset(self.oidc_admin_values),
                groups=self.oidc_groups_claim,
                group_names=None if self.oidc_groups is None else dict(self.oidc_groups),
            ),
            allow_signup=self.oidc_allow_signup,
            session_s=self.session_hours * 3600,
            post_logout_redirect_uri=self.oidc_post_logout_redirect_uri,
        )


class Settings(StoreSettings, LoginSettings):
    """The front door's and the workers'."""

    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)]
    host: str = "127.0.0.1"
    port: Port = 8000
    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 0
    """0: no metrics server."""
    access_url: Annotated[str, AfterValidator(_access_url)] = "http://127.0.0.1:8000"
    """Where browsers and OAuth providers find us."""
    model_allowed_cidrs: Networks = ()
    """Private networks that model providers may be in; none by default."""
    mcp_allowed_cidrs: Networks = ()
    """Private networks that MCP servers may be in; none by default."""
    trusted_proxies: Networks = (ip_network("127.0.0.1"), ip_network("::1"))
    """Whose `X-Forwarded-For` says where a request comes from."""
    cors_origins: Origins = ()
    max_body_bytes: int = Field(default=256 * 1024, ge=1024, le=64 * 1024 * 1024)

    worker_capacity: int = Field(default=100, ge=1, le=10_000)
    max_running_per_owner: int = Field(default=0, ge=0, le=10_000)
    """Turns of one user that run at once, in the whole fleet; 0: no limit."""
    drain_grace_seconds: float = Field(default=25, ge=0, le=3600)
    """A worker's: how long its turns may go on after SIGTERM."""
    oauth_keep_alive_days: float = Field(default=0, ge=0, le=3650)
    """A worker's: tokens that nobody has used for so long are renewed; 0: never."""
    auto_titles: bool = True
    """A worker's: whether new chats are named by a model."""
    drain_delay_seconds: float = Field(default=1, ge=0, le=300)
    """The front door's: how long it still answers after SIGTERM, `/readyz` with 503."""

    otel_endpoint: str | None = Field(
        default=None,
        repr=False,
        validation_alias=AliasChoices(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
        ),
    )
    """Only whether it is set matters: the OpenTelemetry SDK reads its own variables."""


AnySettings = TypeVar("AnySettings", bound=BaseSettings)


def load(kind: type[AnySettings]) -> AnySettings:
    """The settings of this process. Raises `SettingsError`."""
    try:
        return kind()
    except ValidationError as error:
        lines = (
            _line(str(problem["loc"][0]), problem["type"], problem["msg"])
            for problem in error.errors(include_input=False, include_url=False)
        )
        raise SettingsError("\n".join(dict.fromkeys(lines))) from None


def _line(field: str, kind: str, message: str) -> str:
    name = field if field.isupper() else f"{_PREFIX}{field.upper()}"
    if kind == "missing":
        return f"{name} is not set."
    return f"{name}: {message.removeprefix('Value error, ')}."
