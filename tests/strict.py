"""A strict provider's verdict on what a model would be sent."""

from collections.abc import Sequence
from typing import Any

from chatd.dev.scripted_model.strict import violations


def accepted(messages: Sequence[dict[str, Any]]) -> None:
    """Raises AssertionError, naming everything that some provider would refuse."""
    found = violations(messages)
    assert not found, "\n".join([*found, *map(repr, messages)])
