"""A model as a turn calls it, and what its tokens cost."""

from dataclasses import dataclass
from typing import Literal, get_args
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from chatd.core.messages import Usage

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: tuple[ReasoningEffort, ...] = get_args(ReasoningEffort)
"""From least to most."""

DEFAULT_MAX_OUTPUT_TOKENS = 32_000
MAX_TOKENS = 10_000_000
"""A bound on every token setting: no model is near it, and no integer column overflows."""


class Prices(BaseModel):
    """US dollars per million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: float = Field(default=0, ge=0, le=1_000_000)
    output: float = Field(default=0, ge=0, le=1_000_000)
    cache_read: float = Field(default=0, ge=0, le=1_000_000)
    cache_write: float = Field(default=0, ge=0, le=1_000_000)


class EffortOptions(BaseModel):
    """`default` applies when a message asks for none; a request above `max` is lowered to it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: ReasoningEffort | None = None
    max: ReasoningEffort | None = None


class ModelOptions(BaseModel):
    """What a model config sends with every call; null means: leave it to the provider."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_output_tokens: int = Field(default=DEFAULT_MAX_OUTPUT_TOKENS, ge=1, le=MAX_TOKENS)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    reasoning_effort: EffortOptions | None = None
    parallel_tool_calls: bool | None = None
    cost: Prices | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """One model config joined with its provider: all that a call needs."""

    config_id: UUID
    provider_id: UUID
    provider: str
    """The provider's kind, for error texts and metrics: openai, openai-compat."""
    name: str
    """The provider's own id of the model."""
    base_url: str | None
    """None: the provider kind's own address."""
    api_key: SecretStr | None
    context_limit: int
    options: ModelOptions
    compression_threshold: int = 70
    """Percent of the window after which the history is summed up; 100: never."""


def effort(options: ModelOptions, asked: ReasoningEffort | None) -> ReasoningEffort | None:
    """The reasoning effort to send: what was asked or the default, never above the maximum."""
    limits = options.reasoning_effort
    if limits is None:
        return None
    wanted = asked or limits.default
    if wanted is None or limits.max is None:
        return wanted
    return EFFORTS[min(EFFORTS.index(wanted), EFFORTS.index(limits.max))]


def cost_micros(usage: Usage, prices: Prices | None) -> int | None:
    """Millionths of a US dollar; None when the model has no prices.

    `input_tokens` includes the cached ones (OpenAI's counting), which have prices of their own.
    """
    if prices is None:
        return None
    cached = usage["cache_read_tokens"]
    written = usage["cache_creation_tokens"]
    plain = max(usage["input_tokens"] - cached - written, 0)
    return round(
        plain * prices.input
        + usage["output_tokens"] * prices.output
        + cached * prices.cache_read
        + written * prices.cache_write
    )
