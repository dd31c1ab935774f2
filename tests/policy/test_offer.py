"""What a model is offered."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from chatd.core.tools import JsonObject, OfferedTool
from chatd.policy.offer import offer
from tests.policy.made import make_builtin, make_server, make_spec


def _only(schema: JsonObject, **server: Any) -> OfferedTool:
    return offer([(make_server(**server), [make_spec(schema=schema)])]).tools[0]


def test_the_order_is_built_in_external_workspace_each_sorted_by_name() -> None:
    zeta = make_server("zeta", id=UUID(int=2))
    made = offer(
        [(zeta, [make_spec("b"), make_spec("a")]), (make_server("alpha"), [make_spec("z")])],
        builtin=[make_builtin("wait"), make_builtin("ask")],
        workspace=[make_builtin("a__tool")],
    )
    assert [tool.name for tool in made.tools] == [
        "ask",
        "wait",
        "alpha__z",
        "zeta__a",
        "zeta__b",
        "a__tool",
    ]
    assert list(made.by_name) == [tool.name for tool in made.tools]


def test_a_workspaces_tools_are_not_offered_while_planning() -> None:
    server = make_server(allow_in_plan_mode=True)
    made = offer(
        [(server, [make_spec("z")])], plan_mode=True, workspace=[make_builtin("workspace__tool")]
    )
    assert [tool.name for tool in made.tools] == ["demo__z"]


def test_a_tool_keeps_the_way_back_to_its_server_and_its_own_name() -> None:
    tool = offer([(make_server(), [make_spec("read.file")])]).by_name["demo__read_file"]
    assert (tool.server_id, tool.original_name) == (UUID(int=1), "read.file")


def test_nothing_takes_the_name_of_a_tool_before_it() -> None:
    made = offer(
        [(make_server(), [make_spec("add")])],
        builtin=[make_builtin("ask")],
        workspace=[make_builtin("ask"), make_builtin("demo__add")],
    )
    assert made.by_name["demo__add"].server_id == UUID(int=1)
    assert [drop.reason for drop in made.dropped] == ["duplicate_name"] * 2


def test_what_the_lists_drop_is_told() -> None:
    server = make_server(tool_deny_list=frozenset({"add"}))
    made = offer([(server, (make_spec("add"), make_spec("echo")))])
    assert [tool.name for tool in made.tools] == ["demo__echo"]
    assert [(drop.name, drop.reason) for drop in made.dropped] == [("add", "denied")]


def test_a_changed_configuration_takes_effect_on_a_list_that_is_known() -> None:
    specs = (make_spec("add"),)
    before = offer([(make_server(), specs)])
    after = offer([(make_server(tool_deny_list=frozenset({"add"})), specs)])
    assert (len(before.tools), len(after.tools)) == (1, 0)


@pytest.mark.parametrize(
    ("trusted", "hints", "safe"),
    [
        (True, {"read_only": True}, True),
        (True, {"idempotent": True}, True),
        (True, {}, False),
        (False, {"read_only": True, "idempotent": True}, False),
    ],
)
def test_only_a_trusted_server_may_call_a_tool_safe(
    trusted: bool, hints: dict[str, Any], safe: bool
) -> None:
    server = make_server(trust_annotations=trusted)
    assert offer([(server, [make_spec(**hints)])]).tools[0].safe is safe


SCHEMAS: list[tuple[JsonObject, JsonObject]] = [
    ({}, {"type": "object", "properties": {}, "required": []}),
    (
        {"type": "object", "properties": None, "required": None},
        {"type": "object", "properties": {}, "required": []},
    ),
    (
        {
            "type": "object",
            "properties": {"a": {}},
            "required": ["a"],
            "anyOf": [{}],
            "$id": "x",
        },
        {"type": "object", "properties": {"a": {}}, "required": ["a"]},
    ),
    (
        {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "string"}}},
        {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/A"}},
            "required": [],
            "$defs": {"A": {"type": "string"}},
        },
    ),
]


@pytest.mark.parametrize(("schema", "parameters"), SCHEMAS)
def test_parameters_are_what_every_provider_takes(
    schema: JsonObject, parameters: JsonObject
) -> None:
    assert _only(schema).parameters == parameters


def test_model_intent_asks_for_an_intent_beside_the_parameters() -> None:
    schema: JsonObject = {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {}}}
    tool = _only(schema, model_intent=True)
    assert tool.model_intent
    assert tool.parameters["required"] == ["model_intent", "properties"]
    assert tool.parameters["$defs"] == {"A": {}}
    assert tool.parameters["properties"]["properties"] == {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/A"}},
        "required": [],
    }


def test_a_definition_hash_moves_with_what_the_server_says_and_with_nothing_else() -> None:
    spec = make_spec(schema={"type": "object", "properties": {"a": {}, "b": {}}})
    turned = make_spec(schema={"properties": {"b": {}, "a": {}}, "type": "object"})
    hashes = {
        offer([(server, [listed])]).tools[0].definition_hash
        for server in (make_server(), make_server("other", model_intent=True))
        for listed in (spec, turned)
    }
    assert len(hashes) == 1
    changes: list[dict[str, Any]] = [
        {"description": "x"},
        {"name": "x"},
        {"title": "x"},
        {"input_schema": {"type": "object"}},
        {"read_only": True},
        {"idempotent": True},
        {"destructive": False},
    ]
    for change in changes:
        changed = replace(spec, **change)
        assert offer([(make_server(), [changed])]).tools[0].definition_hash not in hashes
