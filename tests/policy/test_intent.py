"""The three shapes in which models send a call that should carry an intent."""

import pytest

from chatd.policy.intent import intent_of, unwrap_intent


@pytest.mark.parametrize(
    ("given", "arguments", "intent"),
    [
        ({"model_intent": "adding", "properties": {"a": 1}}, {"a": 1}, "adding"),
        ({"properties": {"a": 1}}, {"a": 1}, ""),
        ({"model_intent": "adding", "a": 1}, {"a": 1}, "adding"),
        ({"a": 1}, {"a": 1}, ""),
        (
            {"model_intent": 3, "properties": "a real parameter"},
            {"properties": "a real parameter"},
            "",
        ),
        ([1], [1], ""),
        ("text", "text", ""),
        (None, None, ""),
    ],
)
def test_the_tools_own_arguments_come_out(given: object, arguments: object, intent: str) -> None:
    assert unwrap_intent(given) == arguments
    assert intent_of(given) == intent
