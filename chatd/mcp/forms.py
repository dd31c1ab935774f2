"""Checking what a user filled into a form that a server asked for (elicitation)."""

from typing import Any, cast

from jsonschema import Draft202012Validator, SchemaError

from chatd.core.tools import JsonObject

_CHECKED = frozenset(
    {
        "type",
        "enum",
        "const",
        "oneOf",
        "anyOf",
        "items",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
    }
)
"""What a form's field may demand. `pattern` is left out: a server's regular expression runs
nowhere here."""


def form_problem(schema: JsonObject, content: JsonObject) -> str | None:
    """What is wrong with the answer, in words; None when nothing is."""
    properties = schema.get("properties")
    fields = cast(JsonObject, properties) if isinstance(properties, dict) else {}
    checked: JsonObject = {
        "type": "object",
        "properties": {name: _bounded(field) for name, field in fields.items()},
        "required": schema.get("required") or [],
        "additionalProperties": False,
    }
    try:
        validator = Draft202012Validator(checked)
        error = next(validator.iter_errors(content), None)
    except (SchemaError, TypeError, ValueError):
        return None  # the server's own mistake: it sees what the user said
    if error is None:
        return None
    where = ".".join(str(step) for step in error.absolute_path)
    return f"{where}: {error.message}" if where else str(error.message)


def _bounded(field: Any) -> Any:
    if isinstance(field, list):
        return [_bounded(item) for item in cast(list[Any], field)]
    if not isinstance(field, dict):
        return field
    return {
        name: _bounded(value) if name in ("oneOf", "anyOf", "items") else value
        for name, value in cast(JsonObject, field).items()
        if name in _CHECKED
    }
