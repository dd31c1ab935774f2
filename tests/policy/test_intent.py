"""The three shapes in which models send a call that should carry an intent."""

from typing import Any, cast
from urllib.parse import unquote

import pytest
from hypothesis import assume, given, strategies as st

from chatd.core.tools import JsonObject
from chatd.policy.intent import own_parameters, unwrap_intent, wrap_intent
from chatd.policy.offer import parameters_of

WORDS = st.text("abc", max_size=3)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": WORDS,
    "integer": st.integers(),
    "boolean": st.booleans(),
    "array": st.lists(WORDS, max_size=2),
    "null": st.none(),
    "object": st.dictionaries(
        st.sampled_from(["a", "properties", "model_intent"]), st.integers() | WORDS, max_size=3
    ),
}
"""Values by the type a schema gives them."""

NAMES = ["a", "b", "properties", "model_intent"]


def schema(required: list[str] | None = None, **types: str | None) -> JsonObject:
    """Parameters of these types; None: one that the schema does not type."""
    properties = {name: {"type": kind} if kind else {} for name, kind in types.items()}
    return parameters_of({"type": "object", "properties": properties, "required": required or []})


@st.composite
def tools(draw: st.DrawFn) -> tuple[JsonObject, JsonObject]:
    """A tool's schema, and arguments that are valid by it."""
    types = draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(sorted(VALUES))))
    required = draw(st.lists(st.sampled_from(sorted(types)), unique=True)) if types else []
    given = {
        name: draw(VALUES[kind])
        for name, kind in types.items()
        if name in required or draw(st.booleans())
    }
    return schema(required, **types), given


def valid(arguments: Any, own: JsonObject) -> bool:
    """By names and types, said again in the fewest words."""
    kinds = {name: said["type"] for name, said in own["properties"].items()}
    shown = {"dict": "object", "list": "array", "str": "string", "int": "integer"}
    shown |= {"bool": "boolean", "NoneType": "null"}
    if not isinstance(arguments, dict):
        return False
    said = cast(JsonObject, arguments)
    return set(own["required"]) <= said.keys() <= kinds.keys() and all(
        shown[type(value).__name__] == kinds[key] for key, value in said.items()
    )


def unwrapped(arguments: object, own: JsonObject) -> object:
    return unwrap_intent(arguments, own_parameters(wrap_intent(own)))


@given(tools(), WORDS)
def test_arguments_wrapped_as_asked_come_out_of_every_tool(
    tool: tuple[JsonObject, JsonObject], intent: str
) -> None:
    own, arguments = tool
    assert unwrapped({"model_intent": intent, "properties": arguments}, own) == arguments


@given(tools(), WORDS)
def test_arguments_beside_an_intent_come_out_of_every_tool(
    tool: tuple[JsonObject, JsonObject], intent: str
) -> None:
    own, arguments = tool
    assume("model_intent" not in own["properties"])
    flat = {"model_intent": intent, **arguments}
    assume(not (flat.keys() <= {"model_intent", "properties"} and _nested(arguments, own)))
    assert unwrapped(flat, own) == arguments


@given(tools())
def test_bare_arguments_come_out_of_every_tool(tool: tuple[JsonObject, JsonObject]) -> None:
    own, arguments = tool
    both = arguments.keys() == {"model_intent", "properties"}
    assume(not (both and _nested(arguments, own)))
    assert unwrapped(arguments, own) == arguments


def _nested(arguments: JsonObject, own: JsonObject) -> bool:
    """What cannot be told from wrapped arguments: `properties` would do as all of them."""
    return valid(arguments.get("properties"), own)


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({"model_intent": "adding", "properties": {"a": 1}}, {"a": 1}),
        ({"properties": {"a": 1}}, {"a": 1}),
        ({"model_intent": "adding", "a": 1}, {"a": 1}),
        ({"a": 1}, {"a": 1}),
        ({"model_intent": 3, "properties": "no object"}, {"properties": "no object"}),
        ([1], [1]),
        ("text", "text"),
        (None, None),
    ],
)
def test_a_tool_without_such_names_is_read_in_all_three_shapes(
    given: object, arguments: object
) -> None:
    assert unwrapped(given, schema(["a"], a="integer")) == arguments


@pytest.mark.parametrize(
    ("own", "given", "arguments"),
    [
        # A parameter called `properties`, in each shape.
        (
            schema(["properties"], properties="object"),
            {"model_intent": "x", "properties": {"properties": {"k": 1}}},
            {"properties": {"k": 1}},
        ),
        (
            schema(["properties"], properties="object"),
            {"model_intent": "x", "properties": {"k": 1}},
            {"properties": {"k": 1}},
        ),
        (
            schema(["properties"], properties="object"),
            {"properties": {"k": 1}},
            {"properties": {"k": 1}},
        ),
        (
            schema(["id"], id="string", properties="object"),
            {"model_intent": "x", "id": "7", "properties": {"id": "8"}},
            {"id": "7", "properties": {"id": "8"}},
        ),
        # One called `model_intent`.
        (
            schema(["model_intent"], model_intent="string"),
            {"model_intent": "x", "properties": {"model_intent": "y"}},
            {"model_intent": "y"},
        ),
        (
            schema(["model_intent"], model_intent="string", a="integer"),
            {"model_intent": "y", "a": 1},
            {"model_intent": "y", "a": 1},
        ),
        (
            schema(model_intent="integer", a="integer"),
            {"model_intent": "adding", "a": 1},
            {"a": 1},
        ),
        # Neither reading is right: as asked for, so that the server says what is missing.
        (
            schema(["a", "properties"], a="integer", properties="object"),
            {"model_intent": "x", "properties": {"a": "1"}},
            {"a": "1"},
        ),
        (schema(properties=None), {"model_intent": "x", "properties": 1}, {"properties": 1}),
    ],
)
def test_parameters_with_such_names_are_told_apart_by_the_schema(
    own: JsonObject, given: JsonObject, arguments: JsonObject
) -> None:
    assert unwrapped(given, own) == arguments


MOVES = [
    ("#/properties/a", "#/properties/properties/properties/a"),
    ("#/properties/a/items", "#/properties/properties/properties/a/items"),
    ("#/%70roperties/a", "#/properties/properties/%70roperties/a"),
    ("#/$defs/A", "#/$defs/A"),
    ("#/%24defs/A", "#/%24defs/A"),
    ("#/definitions/B", "#/definitions/B"),
]


def refers(reference: str) -> JsonObject:
    """A schema with this reference in all the places where one may be, and where it is data."""
    here = {"$ref": reference}
    return {
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": {"type": "string"}},
            "b": here,
            "default": {"anyOf": [here, {"type": "null"}]},
            "$ref": {"type": "string", "default": here, "enum": [here]},
        },
        "required": [],
        "$defs": {"A": {"properties": {"again": here}}},
        "definitions": {"B": {"type": "string"}},
    }


@pytest.mark.parametrize(("reference", "moved"), MOVES)
def test_references_lead_where_they_led_before(reference: str, moved: str) -> None:
    own = refers(reference)
    wrapped = wrap_intent(own)
    inner, there = own_parameters(wrapped), {"$ref": moved}
    assert inner["properties"]["b"] == there
    assert inner["properties"]["default"]["anyOf"][0] == there
    assert wrapped["$defs"]["A"]["properties"]["again"] == there
    data = {"$ref": reference}
    assert inner["properties"]["$ref"] == {"type": "string", "default": data, "enum": [data]}
    assert _found(wrapped, moved) == _found(own, reference)
    assert own == refers(reference)


def _found(schema: JsonObject, reference: str) -> Any:
    node: Any = schema
    for step in unquote(reference.removeprefix("#/")).split("/"):
        node = node[step]
    return node


def test_what_needs_no_move_is_not_copied() -> None:
    own = refers("#/$defs/A")
    assert own_parameters(wrap_intent(own))["properties"] is own["properties"]
