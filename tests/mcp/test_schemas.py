"""Which input schemas a model can be given."""

from itertools import product
from typing import Any

import pytest

from chatd.mcp.schemas import UnusableSchema, object_schema

EMPTY: dict[str, Any] = {"type": "object", "properties": {}, "required": []}


def _nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


USABLE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, EMPTY),
    ({"type": "object"}, EMPTY),
    ({"type": ["object", "null"]}, EMPTY),
    ({"type": "object", "properties": None, "required": None}, EMPTY),
    (
        {"properties": {"a": {"type": "string"}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    ),
    (
        {"properties": {"a": {"$ref": "#/$defs/A~1B"}, "$ref": {}}, "$defs": {"A/B": {}}},
        EMPTY | {"properties": {"a": {"$ref": "#/$defs/A~1B"}, "$ref": {}}, "$defs": {"A/B": {}}},
    ),
    (
        {"properties": {"a": {"enum": [{"$ref": "data"}]}}},
        EMPTY | {"properties": {"a": {"enum": [{"$ref": "data"}]}}},
    ),
    ({"properties": {"a": _nested(10)}}, EMPTY | {"properties": {"a": _nested(10)}}),
    (
        {
            "title": "T\u202et",
            "properties": {
                "a": {"description": "A\x1b[8mb\u200b\U000e0041.", "default": "x\ufeff"}
            },
        },
        EMPTY | {"title": "Tt", "properties": {"a": {"description": "Ab.", "default": "x"}}},
    ),
    (
        {"$defs": {"A": {"items": {"examples": [{"k\u2066": ["v\x07"]}]}}}},
        EMPTY | {"$defs": {"A": {"items": {"examples": [{"k": ["v"]}]}}}},
    ),
    (
        {"properties": {"description": {"enum": ["a"]}, "p": {"pattern": "^[^\x01-\x1f]+$"}}},
        EMPTY
        | {"properties": {"description": {"enum": ["a"]}, "p": {"pattern": "^[^\x01-\x1f]+$"}}},
    ),
]

UNUSABLE: list[tuple[object, str]] = [
    (None, "not an object"),
    ("object", "not an object"),
    ([], "not an object"),
    ({"type": "string"}, "type is not object"),
    ({"type": None, "anyOf": [{}]}, "type is not object"),
    ({"$ref": "#/$defs/A", "$defs": {"A": {}}}, "type is not object"),
    ({"properties": []}, "not valid JSON Schema at properties"),
    ({"properties": {"a": {"type": "strin"}}}, "not valid JSON Schema at properties/a/type"),
    ({"properties": {"a": 3}}, "not valid JSON Schema at properties/a"),
    ({"required": "a"}, "not valid JSON Schema at required"),
    ({"properties": {"a": {"exclusiveMinimum": True}}}, "exclusiveMinimum"),
    ({"properties": {"a": {"$ref": "#/$defs/A"}}}, "leads nowhere"),
    ({"properties": {"a": {"$ref": "https://example.com/a.json"}}}, "outside"),
    ({"properties": {"a": {"$ref": "#anchor"}}}, "outside"),
    ({"properties": {"a": {"$ref": "#"}}}, "refers to itself"),
    (
        {
            "properties": {"a": {"$ref": "#/$defs/Node"}},
            "$defs": {"Node": {"properties": {"next": {"$ref": "#/$defs/Node"}}}},
        },
        "refers to itself",
    ),
    (
        {"$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}},
        "refers to itself",
    ),
    ({"properties": {"a": _nested(150)}}, "nested too deeply"),
    ({"anyOf": [{}] * 15_000, "type": "object"}, "more than 2000 parts"),
    ({"properties": {"a": {"x-names": ["b"] * 5000}}}, "more than 2000 parts"),
    ({"properties": {"a": {"items": {"$ref": "#/properties/%61"}}}}, "refers to itself"),
    ({"properties": {"a": {"items": {"$ref": "#/%70roperties"}}}}, "refers to itself"),
    ({"description": "x" * 70_000}, "larger than 64 KiB"),
    ({"properties": {"a\u200b": {}}}, "invisible"),
    ({"properties": {"a": {"enum": ["b\U000e0041"]}}}, "invisible"),
    ({"properties": {"description": {"const": "\x1b[2J"}}}, "invisible"),
    ({"properties": {"a": {"pattern": "\u202e"}}}, "invisible"),
    ({"required": ["a\u2060"]}, "invisible"),
    ({"properties": {"a": _nested(5000)}}, "nested too deeply"),
]


@pytest.mark.parametrize(("raw", "schema"), USABLE)
def test_a_usable_schema_is_an_object_with_properties_and_required(
    raw: dict[str, Any], schema: dict[str, Any]
) -> None:
    assert object_schema(raw) == schema


@pytest.mark.parametrize(("raw", "why"), UNUSABLE)
def test_an_unusable_schema_says_why(raw: object, why: str) -> None:
    with pytest.raises(UnusableSchema, match=why):
        object_schema(raw)


def test_references_that_double_at_each_level_are_followed_once() -> None:
    levels = {
        f"L{level}": {"anyOf": [{"$ref": f"#/$defs/L{level + 1}"}] * 2} for level in range(60)
    }
    schema = {"properties": {"a": {"$ref": "#/$defs/L0"}}, "$defs": {**levels, "L60": {}}}
    assert object_schema(schema)["$defs"] == schema["$defs"]


def test_all_spellings_of_a_reference_are_one() -> None:
    """Were each followed by itself, there would be too many parts."""
    spelled = ["".join(pair) for pair in product(("l", "%6C"), ("i", "%69"), ("s", "%73"))]
    schema: dict[str, Any] = {
        "x-list": [{} for _ in range(1000)],
        "properties": {name: {"$ref": f"#/x-{name}t"} for name in spelled},
    }
    assert object_schema(schema)["properties"] == schema["properties"]
