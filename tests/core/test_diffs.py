"""What changed between two definitions of a tool."""

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from chatd.core.diffs import changed_paths, field_diffs

PATHS: list[tuple[Any, Any, list[dict[str, Any]]]] = [
    ({"a": 1}, {"a": 1}, []),
    ({"a": 1}, {"a": True}, [{"op": "replace", "path": "/a", "value": True, "before": 1}]),
    ({"a": {}}, {}, [{"op": "remove", "path": "/a", "before": {}}]),
    ({}, {"a/b~c": 1}, [{"op": "add", "path": "/a~1b~0c", "value": 1}]),
    (
        [1, 2, 3],
        [1],
        [
            {"op": "remove", "path": "/2", "before": 3},
            {"op": "remove", "path": "/1", "before": 2},
        ],
    ),
    (
        [],
        [1, 2],
        [
            {"op": "add", "path": "/0", "value": 1},
            {"op": "add", "path": "/1", "value": 2},
        ],
    ),
    (None, {"a": 1}, [{"op": "replace", "path": "", "value": {"a": 1}, "before": None}]),
]


@pytest.mark.parametrize(("before", "after", "changes"), PATHS)
def test_changes_are_named_by_path(before: Any, after: Any, changes: list[Any]) -> None:
    assert list(changed_paths(before, after)) == changes


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["", "a", "~/"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b/c", "~"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON, JSON)
def test_the_changes_applied_in_order_give_what_is_now(before: Any, after: Any) -> None:
    holder = {"root": before}
    for change in changed_paths(before, after):
        _apply(holder, change)
    assert json.dumps(holder["root"], sort_keys=True) == json.dumps(after, sort_keys=True)


def _apply(holder: dict[str, Any], change: dict[str, Any]) -> None:
    steps = [step.replace("~1", "/").replace("~0", "~") for step in change["path"].split("/")]
    steps[0] = "root"
    node: Any = holder
    for step in steps[:-1]:
        node = node[int(step)] if isinstance(node, list) else node[step]
    last: Any = int(steps[-1]) if isinstance(node, list) else steps[-1]
    if change["op"] == "remove":
        assert node.pop(last) == change["before"]
    elif isinstance(node, list) and change["op"] == "add":
        node.insert(last, change["value"])
    else:
        node[last] = change["value"]


def test_every_field_that_differs_has_a_unified_diff() -> None:
    before = {"name": "a", "description": "one\ntwo", "input_schema": {"type": "object"}}
    after = {"name": "a", "description": "one\nthree", "input_schema": {"type": 1}}
    diffs = field_diffs(before, after)
    assert diffs.keys() == {"description", "input_schema"}
    assert diffs["description"].splitlines()[-3:] == [" one", "-two", "+three"]
    assert '-  "type": "object"' in diffs["input_schema"]


def test_a_diff_of_two_huge_texts_is_not_searched_for_what_they_share() -> None:
    before, after = ("\n".join(f"{start} {n}" for n in range(1500)) for start in "ab")
    lines = field_diffs({"description": before}, {"description": after})["description"]
    assert lines.startswith("-a 0\n")
    assert len(lines.splitlines()) == 3000
