"""What the environment already offers `chatd dev`, and what its processes get from us."""

import os
from collections.abc import Mapping

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

LOOPBACK = "127.0.0.0/8,::1/128"
OPENAI_URL = "https://api.openai.com/v1"


class Surroundings(BaseSettings):
    """Services and a model that are there already; each is optional."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True, hide_input_in_errors=True, frozen=True, extra="ignore"
    )

    chatd_database_url: SecretStr | None = None
    chatd_redis_url: SecretStr | None = None
    chatd_encryption_keys: SecretStr | None = None
    chatd_model_allowed_cidrs: str = ""
    chatd_mcp_allowed_cidrs: str = ""
    openai_api_key: SecretStr | None = None
    openai_base_url: str = ""
    openai_model: str = "gpt-5-mini"

    @property
    def database_url(self) -> str | None:
        return _plain(self.chatd_database_url)

    @property
    def redis_url(self) -> str | None:
        return _plain(self.chatd_redis_url)

    @property
    def real_model(self) -> bool:
        return bool(self.openai_api_key or self.openai_base_url)

    def environment(
        self, *, database_url: str, redis_url: str, encryption_keys: SecretStr, url: str
    ) -> dict[str, str]:
        """The whole environment of an api or worker process: ours, and what chatd needs."""
        # The openai SDK would read its own variables behind our back.
        kept = {name: value for name, value in _ours().items() if not name.startswith("OPENAI_")}
        return kept | {
            "CHATD_DATABASE_URL": database_url,
            "CHATD_REDIS_URL": redis_url,
            "CHATD_ENCRYPTION_KEYS": encryption_keys.get_secret_value(),
            "CHATD_ACCESS_URL": url,
            "CHATD_MODEL_ALLOWED_CIDRS": _networks(self.chatd_model_allowed_cidrs),
            "CHATD_MCP_ALLOWED_CIDRS": _networks(self.chatd_mcp_allowed_cidrs),
            "CHATD_LOG_FORMAT": "console",
            # Whoever presses Ctrl-C does not want to wait for a load balancer.
            "CHATD_DRAIN_DELAY_SECONDS": "0",
            "CHATD_DRAIN_GRACE_SECONDS": "3",
        }


def _ours() -> Mapping[str, str]:
    return os.environ  # noqa: TID251 - not read for settings: children inherit it


def _networks(given: str) -> str:
    return f"{given},{LOOPBACK}" if given else LOOPBACK


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None
