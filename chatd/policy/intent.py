"""`model_intent`: the model says in a few words what a call is for, beside its parameters."""

from collections.abc import Iterator
from typing import cast
from urllib.parse import unquote

from chatd.core.schemas import DATA, NAMES
from chatd.core.tools import INTENT, JsonObject

_WRAPPED = "properties"
_HOISTED = ("$defs", "definitions")
"""These stay at the root, where references look for them."""

_DESCRIPTION = (
    "What this call is for, as a short present-participle phrase in plain English, without"
    " underscores and under 100 characters. People see it while the tool runs."
)

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": (int, float),
    "number": (int, float),
    "null": type(None),
}


def wrap_intent(parameters: JsonObject) -> JsonObject:
    """The schema that asks for an intent and, under `properties`, for the tool's own parameters."""
    if _refers_inside(parameters):
        parameters = cast(JsonObject, _moved(parameters))
    outer = {key: parameters[key] for key in _HOISTED if key in parameters}
    inner = {key: value for key, value in parameters.items() if key not in outer}
    return {
        "type": "object",
        "properties": {
            INTENT: {"type": "string", "description": _DESCRIPTION},
            _WRAPPED: inner,
        },
        "required": [INTENT, _WRAPPED],
        **outer,
    }


def _refers_inside(node: object) -> bool:
    """Whether wrapping may move what a reference points at; most schemas have none such."""
    if isinstance(node, list):
        return any(map(_refers_inside, cast(list[object], node)))
    if not isinstance(node, dict):
        return False
    return any(
        (key == "$ref" and isinstance(value, str) and _moved_to(value) != value)
        or _refers_inside(value)
        for key, value in cast(JsonObject, node).items()
    )


def _moved(node: object, *, names: bool = False) -> object:
    """A copy whose references follow the parameters to where they are wrapped."""
    if isinstance(node, list):
        return [_moved(item) for item in cast(list[object], node)]
    if not isinstance(node, dict):
        return node
    moved: JsonObject = {}
    for key, value in cast(JsonObject, node).items():
        if not names and key == "$ref" and isinstance(value, str):
            moved[key] = _moved_to(value)
        elif not names and key in DATA:
            moved[key] = value
        else:
            moved[key] = _moved(value, names=not names and key in NAMES)
    return moved


def _moved_to(reference: str) -> str:
    inside = reference.startswith("#/")
    if not inside or unquote(reference[2:]).partition("/")[0] in _HOISTED:
        return reference
    return f"#/properties/{_WRAPPED}{reference[1:]}"


def own_parameters(wrapped: JsonObject) -> JsonObject:
    """The tool's own schema out of what `wrap_intent` made of it."""
    return wrapped["properties"][_WRAPPED]


def unwrap_intent(arguments: object, own: JsonObject) -> object:
    """The tool's own arguments from what the model wrote; `own` is the tool's own schema.

    Three shapes: wrapped as asked, beside an intent, and bare. What is no object is given back as
    it is. Where a tool has a parameter called `properties` or `model_intent` itself, the first
    shape that fits its schema counts; if several do, the one that was asked for.
    """
    if not isinstance(arguments, dict):
        return arguments
    readings = list(_readings(cast(JsonObject, arguments), own))
    return next((reading for reading in readings if _fits(reading, own)), readings[0])


def _readings(given: JsonObject, own: JsonObject) -> Iterator[JsonObject]:
    """What the model may have meant, the likeliest first."""
    names: JsonObject = own["properties"]
    inner = given.get(_WRAPPED)
    could_be_wrapped = isinstance(inner, dict) and (
        _WRAPPED not in names or given.keys() <= {INTENT, _WRAPPED}
    )
    asked_for = INTENT in given or _WRAPPED not in names
    if could_be_wrapped and asked_for:
        yield cast(JsonObject, inner)
        if _WRAPPED not in names:
            return
    if INTENT in names:
        yield given
    yield {name: value for name, value in given.items() if name != INTENT}
    if could_be_wrapped:
        yield cast(JsonObject, inner)


def _fits(arguments: JsonObject, own: JsonObject) -> bool:
    """Every required parameter, none undeclared, each of its type. No deeper: patterns may be
    made to take long, and names and types tell the shapes apart."""
    names: JsonObject = own["properties"]
    return (
        all(name in arguments for name in own["required"])
        and arguments.keys() <= names.keys()
        and all(_is_of_type(value, names[name]) for name, value in arguments.items())
    )


def _is_of_type(value: object, schema: object) -> bool:
    """True also where the schema does not say, or says it in another way."""
    if not isinstance(schema, dict):
        return schema is not False
    said: object = cast(JsonObject, schema).get("type", [])
    kinds = cast(list[object], said) if isinstance(said, list) else [said]
    if isinstance(value, bool):
        return not kinds or "boolean" in kinds
    allowed = [_TYPES.get(kind, object) for kind in kinds if isinstance(kind, str)]
    return not allowed or any(isinstance(value, kind) for kind in allowed)
