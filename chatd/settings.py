"""What an operator sets, from `CHATD_…` environment variables; read by entry points only."""

import base64
import binascii
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
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from chatd.core.errors import ChatdError

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
    return value.rstrip("/")


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


class Settings(StoreSettings):
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
    cors_origins: Origins = ()
    max_body_bytes: int = Field(default=256 * 1024, ge=1024, le=64 * 1024 * 1024)

    worker_capacity: int = Field(default=100, ge=1, le=10_000)
    max_running_per_owner: int = Field(default=0, ge=0, le=10_000)
    """Turns of one user that run at once, in the whole fleet; 0: no limit."""
    drain_grace_seconds: float = Field(default=25, ge=0, le=3600)
    """A worker's: how long its turns may go on after SIGTERM."""
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
