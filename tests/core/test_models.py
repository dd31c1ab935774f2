"""What a model is asked for, and what its tokens cost."""

import pytest

from chatd.core.messages import NO_USAGE, Usage
from chatd.core.models import (
    EffortOptions,
    ModelOptions,
    Prices,
    ReasoningEffort,
    cost_micros,
    effort,
)

PRICES = Prices(input=3, output=15, cache_read=0.3, cache_write=3.75)


@pytest.mark.parametrize(
    ("limits", "asked", "sent"),
    [
        (None, "high", None),
        (EffortOptions(), None, None),
        (EffortOptions(), "high", "high"),
        (EffortOptions(default="low"), None, "low"),
        (EffortOptions(default="low"), "none", "none"),
        (EffortOptions(max="medium"), "max", "medium"),
        (EffortOptions(max="medium"), "low", "low"),
        (EffortOptions(default="high", max="low"), None, "low"),
    ],
)
def test_the_effort_asked_for_never_exceeds_the_configs(
    limits: EffortOptions | None, asked: ReasoningEffort | None, sent: ReasoningEffort | None
) -> None:
    assert effort(ModelOptions(reasoning_effort=limits), asked) == sent


@pytest.mark.parametrize(
    ("counts", "micros"),
    [
        ({"input_tokens": 1_000_000}, 3_000_000),
        ({"output_tokens": 1000}, 15_000),
        ({"input_tokens": 100, "cache_read_tokens": 100}, 30),
        ({"input_tokens": 100, "cache_read_tokens": 40, "cache_creation_tokens": 60}, 237),
        ({"input_tokens": 10, "cache_read_tokens": 100}, 30),  # a provider's odd counting
        ({}, 0),
    ],
)
def test_cached_tokens_have_prices_of_their_own(counts: dict[str, int], micros: int) -> None:
    usage = Usage(**(NO_USAGE | counts))  # pyright: ignore[reportArgumentType]
    assert cost_micros(usage, PRICES) == micros
    assert cost_micros(usage, None) is None
