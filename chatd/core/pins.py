"""A tool's definition as it is hashed, kept and compared, and what is pinned of a tool."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from chatd.core.tools import JsonObject, ToolSpec

ChangeKind = Literal["pin", "follow", "flag", "settle"]

FIELDS = ("name", "title", "description", "input_schema", "annotations")


def definition_of(spec: ToolSpec) -> JsonObject:
    """Everything that the server says of a tool, by `FIELDS`.

    Also the title, which people approve calls by, and the hints: `read_only` decides whether
    anybody is asked at all.
    """
    return {
        "name": spec.name,
        "title": spec.title,
        "description": spec.description,
        "input_schema": spec.input_schema,
        "annotations": {
            "read_only": spec.read_only,
            "idempotent": spec.idempotent,
            "destructive": spec.destructive,
        },
    }


def spec_of(definition: JsonObject) -> ToolSpec:
    """The way back."""
    hints: dict[str, Any] = definition["annotations"]
    return ToolSpec(
        name=definition["name"],
        title=definition["title"],
        description=definition["description"],
        input_schema=definition["input_schema"],
        **hints,
    )


def definition_hash(spec: ToolSpec) -> str:
    """SHA-256 of the definition's canonical JSON: approvals and pins are bound to it."""
    return hashlib.sha256(_canonical(definition_of(spec)).encode()).hexdigest()


def changed_fields(before: JsonObject, after: JsonObject) -> list[str]:
    """Which fields of two definitions differ; of a definition and nothing, all of them."""
    return [
        field for field in FIELDS if _canonical(before.get(field)) != _canonical(after.get(field))
    ]


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


MAX_SEEN = 32
"""Definitions of one tool that are remembered as followed."""


@dataclass(frozen=True, slots=True)
class Pin:
    """A tool as it was pinned."""

    definition_hash: str
    """Empty: nobody has accepted any definition of this tool yet."""
    spec: ToolSpec | None = None
    """None: not read, as the list at hand agrees with the hash."""
    pending_hash: str = ""
    """Of the change that waits for an administrator."""
    seen: frozenset[str] = frozenset()
    """Hashes that were followed so far."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a fresh list says about the pin of one tool.

    `pin`: seen for the first time; `follow`: the pin moves; `flag`: an administrator has to look,
    also at a tool without a pin; `settle`: the tool is as pinned again.
    """

    kind: ChangeKind
    spec: ToolSpec
    hash: str
