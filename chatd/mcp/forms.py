"""Checking what a user filled into a form that a server asked for (elicitation)."""

from typing import Any, cast

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import UnknownType

from chatd.core.tools import JsonObject

MAX_CONTENT = 64 * 1024
"""Bytes of an answer as JSON."""
MAX_CHOICES = 100
"""Of one field: each is compared with everything that the server lets choose."""
MAX_PROBLEM = 500

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
    problem = _shape_problem(content)
    if problem is not None:
        return problem
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
    except (UnknownType, AttributeError, TypeError, ValueError, RecursionError):
        return None  # the server's own mistake: it sees what the user said
    if error is None:
        return None
    where = ".".join(str(step) for step in error.absolute_path)
    return (f"{where}: " if where else "") + error.message[:MAX_PROBLEM]


def _shape_problem(content: JsonObject) -> str | None:
    """Forms are flat, whatever the server asks for."""
    for name, value in content.items():
        if not _flat(value):
            kinds = f"text, numbers, yes or no, and at most {MAX_CHOICES} choices"
            return f"{name[:100]}: a form takes {kinds}"
    if len(orjson.dumps(content)) > MAX_CONTENT:
        return f"an answer has at most {MAX_CONTENT // 1024} KiB"
    return None


def _flat(value: Any) -> bool:
    if isinstance(value, list):
        chosen = cast(list[object], value)
        return len(chosen) <= MAX_CHOICES and all(isinstance(item, str) for item in chosen)
    return not isinstance(value, dict)


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
