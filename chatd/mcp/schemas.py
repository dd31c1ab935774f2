"""Is a tool's input schema one that a model can be given?"""

from functools import lru_cache
from typing import cast
from urllib.parse import unquote

import orjson
from jsonschema import Draft202012Validator

from chatd.core.schemas import DATA, NAMES
from chatd.core.text import INVISIBLE, bare
from chatd.core.tools import JsonObject

MAX_SCHEMA = 64 * 1024
"""Bytes as JSON."""
MAX_PARTS = 2000
"""Objects and items of lists: checking each takes a tenth of a millisecond, and turns are
streaming."""

_REMEMBERED = 8 * 1024

_TOLD = frozenset({"title", "description", "$comment", "default", "example", "examples"})
"""Keywords whose values the model reads, and no call has to match."""

_CONTROLS = dict.fromkeys([*range(32), *range(127, 160)])

_COMBINING = ("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if")


class UnusableSchema(Exception):
    """The text says why; for people."""


def object_schema(raw: object) -> JsonObject:
    """The schema with an object at its root and lists for null, as a person sees it.

    Raises UnusableSchema.
    """
    if not isinstance(raw, dict):
        raise UnusableSchema("the input schema is not an object")
    try:
        schema = cast(JsonObject, _visible(cast(JsonObject, raw)))
    except RecursionError:
        raise UnusableSchema("the input schema is nested too deeply") from None
    kind = schema.get("type")
    if kind is None and any(key in schema for key in _COMBINING):
        raise UnusableSchema("the input schema's type is not object")
    if kind not in (None, "object") and not (isinstance(kind, list) and "object" in kind):
        raise UnusableSchema("the input schema's type is not object")
    schema["type"] = "object"
    if schema.get("properties") is None:
        schema["properties"] = {}
    if schema.get("required") is None:
        schema["required"] = []
    _check(schema)
    return schema


def _visible(node: object, *, names: bool = False) -> object:
    """What the model is told and shown, without anything invisible; what a call has to carry as it
    is must have nothing invisible."""
    if isinstance(node, str):
        return _plain(node)
    if isinstance(node, list):
        return [_visible(item) for item in cast(list[object], node)]
    if not isinstance(node, dict):
        return node
    seen: JsonObject = {}
    for key, value in cast(JsonObject, node).items():
        if not names and key in _TOLD:
            seen[key] = _bare(value)
        elif not names and key == "pattern" and isinstance(value, str):
            # A pattern names control characters to exclude them.
            _plain(value.translate(_CONTROLS))
            seen[key] = value
        else:
            seen[_plain(key)] = _visible(value, names=not names and key in NAMES)
    return seen


def _plain(text: str) -> str:
    if INVISIBLE.search(text) is not None:
        raise UnusableSchema("the input schema has a name or a value with invisible characters")
    return text


def _bare(value: object) -> object:
    if isinstance(value, str):
        return bare(value)
    if isinstance(value, list):
        return [_bare(item) for item in cast(list[object], value)]
    if isinstance(value, dict):
        return {bare(key): _bare(item) for key, item in cast(JsonObject, value).items()}
    return value


def _check(schema: JsonObject) -> None:
    try:
        encoded = orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise UnusableSchema("the input schema cannot be written as JSON") from error
    if len(encoded) > MAX_SCHEMA:
        raise UnusableSchema(f"the input schema is larger than {MAX_SCHEMA // 1024} KiB")
    problem = _known_problem(encoded) if len(encoded) <= _REMEMBERED else _problem(encoded)
    if problem is not None:
        raise UnusableSchema(problem)


def _problem(encoded: bytes) -> str | None:
    schema = orjson.loads(encoded)
    try:
        _References(schema).check()
        error = next(iter(_META.iter_errors(schema)), None)
    except UnusableSchema as unusable:
        return str(unusable)
    except RecursionError:
        return "the input schema is nested too deeply"
    if error is None:
        return None
    where = "/".join(str(step) for step in error.absolute_path) or "its root"
    return f"the input schema is not valid JSON Schema at {where[:100]}"


_known_problem = lru_cache(maxsize=2048)(_problem)
"""Lists are fetched again and again, and one check takes a millisecond."""

_META = Draft202012Validator(Draft202012Validator.META_SCHEMA)


class _References:
    """Follows every `$ref` once; what refers to itself has no finite form to show a model.

    Goes by what a reference leads to: there are many ways to spell one.
    """

    def __init__(self, schema: JsonObject) -> None:
        self._schema = schema
        self._open: set[int] = set()
        self._done: set[int] = set()
        self._parts = 0

    def check(self) -> None:
        self._walk(self._schema)

    def _walk(self, node: object) -> None:
        if not isinstance(node, dict | list) or id(cast(object, node)) in self._done:
            return
        self._open.add(id(cast(object, node)))
        if isinstance(node, list):
            self._walk_list(cast(list[object], node))
        else:
            self._walk_object(cast(JsonObject, node))
        self._open.remove(id(cast(object, node)))
        self._done.add(id(cast(object, node)))

    def _walk_list(self, items: list[object]) -> None:
        self._count(sum(not isinstance(item, dict) for item in items))
        for item in items:
            self._walk(item)

    def _walk_object(self, schema: JsonObject) -> None:
        self._count(1)
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):
                self._follow(value)
            elif key not in DATA or not isinstance(value, str | list):
                self._walk(value)

    def _count(self, parts: int) -> None:
        self._parts += parts
        if self._parts > MAX_PARTS:
            raise UnusableSchema(f"the input schema has more than {MAX_PARTS} parts")

    def _follow(self, reference: str) -> None:
        target = self._target(reference)
        if id(target) in self._open:
            raise UnusableSchema(f"{reference[:100]} refers to itself")
        self._walk(target)

    def _target(self, reference: str) -> object:
        if reference == "#":
            return self._schema
        if not reference.startswith("#/"):
            raise UnusableSchema(f"{reference[:100]} lies outside the input schema")
        node: object = self._schema
        for step in unquote(reference[2:]).split("/"):
            node = _child(node, step.replace("~1", "/").replace("~0", "~"))
            if node is None:
                raise UnusableSchema(f"{reference[:100]} leads nowhere")
        return node


def _child(node: object, step: str) -> object | None:
    if isinstance(node, dict):
        return cast(JsonObject, node).get(step)
    if isinstance(node, list) and step.isdecimal():
        items = cast(list[object], node)
        return items[int(step)] if int(step) < len(items) else None
    return None
