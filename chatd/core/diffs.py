"""What changed between two definitions of a tool, for people and for programs; pure."""

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any, cast

from chatd.core.pins import changed_fields
from chatd.core.tools import JsonObject

MAX_WORK = 1_000_000
"""Pairs of lines to compare: what a server writes must not keep a process busy."""


def field_diffs(before: JsonObject, after: JsonObject) -> dict[str, str]:
    """The unified diff of every field that differs; of a schema, that of its JSON text."""
    return {
        field: _unified(_text(before.get(field)), _text(after.get(field)))
        for field in changed_fields(before, after)
    }


def changed_paths(before: Any, after: Any, path: str = "") -> Iterator[JsonObject]:
    """The changes from one JSON value to another as JSON Patch has them, each with the value that
    was there: `{op: add | remove | replace, path, value, before}`."""
    if isinstance(before, dict) and isinstance(after, dict):
        yield from _of_objects(cast(JsonObject, before), cast(JsonObject, after), path)
    elif isinstance(before, list) and isinstance(after, list):
        yield from _of_lists(cast(list[object], before), cast(list[object], after), path)
    elif repr(cast(object, before)) != repr(cast(object, after)):
        # Unlike ==, this tells 1 from true.
        yield {"op": "replace", "path": path, "value": after, "before": before}


def _of_objects(before: JsonObject, after: JsonObject, path: str) -> Iterator[JsonObject]:
    for key in sorted(before.keys() | after.keys()):
        step = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
        if key not in after:
            yield {"op": "remove", "path": step, "before": before[key]}
        elif key not in before:
            yield {"op": "add", "path": step, "value": after[key]}
        else:
            yield from changed_paths(before[key], after[key], step)


def _of_lists(before: list[object], after: list[object], path: str) -> Iterator[JsonObject]:
    for index, (old, new) in enumerate(zip(before, after, strict=False)):
        yield from changed_paths(old, new, f"{path}/{index}")
    for index in range(len(before), len(after)):
        yield {"op": "add", "path": f"{path}/{index}", "value": after[index]}
    for index in reversed(range(len(after), len(before))):
        yield {"op": "remove", "path": f"{path}/{index}", "before": before[index]}


def _text(value: object) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return value.splitlines()
    return json.dumps(cast(JsonObject, value), indent=2, sort_keys=True).splitlines()


def _unified(before: Sequence[str], after: Sequence[str]) -> str:
    if len(before) * len(after) > MAX_WORK:
        lines = [*(f"-{line}" for line in before), *(f"+{line}" for line in after)]
    else:
        lines = difflib.unified_diff(before, after, "before", "after", lineterm="")
    return "\n".join(lines)
