"""`model_intent`: the model says in a few words what a call is for, beside its parameters."""

from typing import cast

from chatd.core.tools import JsonObject

INTENT = "model_intent"

_DESCRIPTION = (
    "What this call is for, as a short present-participle phrase in plain English, without"
    " underscores and under 100 characters. People see it while the tool runs."
)


def wrap_intent(parameters: JsonObject) -> JsonObject:
    """The schema that asks for an intent and, under `properties`, for the tool's own parameters."""
    outer = {key: parameters[key] for key in ("$defs", "definitions") if key in parameters}
    inner = {key: value for key, value in parameters.items() if key not in outer}
    return {
        "type": "object",
        "properties": {
            INTENT: {"type": "string", "description": _DESCRIPTION},
            "properties": inner,
        },
        "required": [INTENT, "properties"],
        **outer,
    }


def unwrap_intent(arguments: object) -> object:
    """The tool's own arguments from what the model wrote.

    Three shapes: an object whose `properties` is an object gives that; any other object gives
    itself without the intent; what is not an object is given back as it is.
    """
    if not isinstance(arguments, dict):
        return arguments
    given = cast(JsonObject, arguments)
    inner = given.get("properties")
    if isinstance(inner, dict):
        return cast(JsonObject, inner)
    return {key: value for key, value in given.items() if key != INTENT}


def intent_of(arguments: object) -> str:
    """What the model said the call is for; empty when it did not say."""
    if not isinstance(arguments, dict):
        return ""
    intent = cast(JsonObject, arguments).get(INTENT)
    return intent if isinstance(intent, str) else ""
