"""What administrators send about model providers and model configs."""

from dataclasses import fields
from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, StrictInt, StringConstraints

from chatd.api.admin import AdminBody, BaseUrl, Secret
from chatd.api.fields import Flag
from chatd.core.errors import BadRequest
from chatd.core.models import MAX_TOKENS, ModelOptions
from chatd.store.models import ConfigSettings, ProviderSettings, View

LARGE_CONTEXT = 500_000
"""From here on, a third of the window is already long: compact earlier."""

Kind = Annotated[
    Literal["openai", "openai-compat"],
    Field(description="`openai`, or any server that speaks its chat completions."),
]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
DisplayName = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)]
ContextLimit = Annotated[StrictInt, Field(ge=1, le=MAX_TOKENS)]
Threshold = Annotated[
    StrictInt, Field(ge=0, le=100, description="Compact at this much of the window; 100: never.")
]
Turns = Annotated[
    StrictInt,
    Field(ge=1, le=10_000, description="That run at once in the whole fleet; null: no limit."),
]
_KEY_EXAMPLE = "sk-…"


class ProviderBody(AdminBody):
    """A new provider. The key is kept encrypted and never answered."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"provider": "openai", "display_name": "OpenAI", "api_key": _KEY_EXAMPLE},
                {
                    "provider": "openai-compat",
                    "display_name": "In-house",
                    "base_url": "https://models.example/v1",
                },
            ]
        }
    )

    provider: Kind
    display_name: DisplayName = ""
    base_url: BaseUrl = ""
    enabled: Flag = True
    api_key: Secret | None = None
    max_concurrent_turns: Turns | None = None

    def to_settings(self) -> ProviderSettings:
        """Raises `BadRequest`."""
        return _checked_provider(
            ProviderSettings(
                provider=self.provider,
                display_name=self.display_name or self.provider,
                base_url=self.base_url,
                enabled=self.enabled,
                api_key=self.api_key,
                max_concurrent_turns=self.max_concurrent_turns,
            )
        )


class ProviderPatch(AdminBody):
    """Changes; an empty `api_key` takes the key away, null for `max_concurrent_turns` the limit."""

    provider: Kind | None = None
    display_name: Name | None = None
    base_url: BaseUrl | None = None
    enabled: Flag | None = None
    api_key: Secret | None = None
    max_concurrent_turns: Turns | None = None

    nullable: ClassVar[frozenset[str]] = frozenset({"max_concurrent_turns"})

    def to_settings(self, stored: View) -> ProviderSettings:
        """The stored provider with the changes, checked as a whole. Raises `BadRequest`."""
        kept = {name: stored[name] for name in _KEPT}
        return _checked_provider(ProviderSettings(**(kept | self.given())))


_KEPT = ("provider", "display_name", "base_url", "enabled", "max_concurrent_turns")


def _checked_provider(settings: ProviderSettings) -> ProviderSettings:
    if settings.provider == "openai-compat" and not settings.base_url:
        raise BadRequest("An openai-compat provider needs a base_url.")
    return settings


class ConfigBody(AdminBody):
    """A new model config. The first one of an installation becomes the default."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "provider_id": "0198c0de-0000-7000-8000-000000000000",
                    "model": "gpt-5-mini",
                    "context_limit": 400_000,
                    "options": {"max_output_tokens": 32_000},
                }
            ]
        }
    )

    provider_id: UUID
    model: Name
    context_limit: ContextLimit
    display_name: DisplayName = ""
    enabled: Flag = True
    is_default: Flag = False
    compression_threshold: Threshold | None = Field(
        default=None, description="Absent: 70, or 30 for windows of 500 000 tokens and more."
    )
    options: ModelOptions = ModelOptions()

    def to_settings(self) -> ConfigSettings:
        """Raises `BadRequest`."""
        threshold = 30 if self.context_limit >= LARGE_CONTEXT else 70
        if self.compression_threshold is not None:
            threshold = self.compression_threshold
        return _checked_config(
            ConfigSettings(
                model=self.model,
                display_name=self.display_name,
                enabled=self.enabled,
                is_default=self.is_default,
                context_limit=self.context_limit,
                compression_threshold=threshold,
                options=_stored(self.options),
            ),
            asked_default=self.is_default,
        )


class ConfigPatch(AdminBody):
    """Changes; `options` are replaced as a whole."""

    model: Name | None = None
    context_limit: ContextLimit | None = None
    display_name: DisplayName | None = None
    enabled: Flag | None = None
    is_default: Flag | None = None
    compression_threshold: Threshold | None = None
    options: ModelOptions | None = None

    def to_settings(self, stored: View) -> ConfigSettings:
        """The stored config with the changes, checked as a whole. Raises `BadRequest`."""
        merged = {field.name: stored[field.name] for field in fields(ConfigSettings)}
        merged |= self.given()
        if isinstance(merged["options"], ModelOptions):
            merged["options"] = _stored(merged["options"])
        return _checked_config(ConfigSettings(**merged), asked_default=bool(self.is_default))


def _checked_config(settings: ConfigSettings, *, asked_default: bool) -> ConfigSettings:
    if asked_default and not settings.enabled:
        raise BadRequest("A disabled model config cannot be the default.")
    return settings


def _stored(options: ModelOptions) -> dict[str, object]:
    return options.model_dump(mode="json", exclude_none=True)
