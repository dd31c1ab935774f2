"""Nobody but policy decides: what it decides by is read nowhere else."""

import ast
from pathlib import Path

import chatd

ROOT = Path(chatd.__file__).parent

DECIDING = {
    "allow_in_plan_mode",
    "tool_allow_list",
    "tool_deny_list",
    "trust_annotations",
    "group_ids",
    "in_plan",
    "only_in_plan_mode",
    "tool_settings",
    "availability",
    "required_auth",
    "unauthorised_ids",
}
"""Attributes of a server, a tool or a situation that say whether a tool may be used."""

MAY_READ = {
    "policy",  # decides
    "core",  # defines the values
    "store",  # reads and writes the rows
    "api/server_bodies.py",  # checks what administrators send
}

HANDED_ON = ("turn/toolbox.py", "group_ids")
"""From the loaded policy to the situation."""


def test_what_policy_decides_by_is_read_by_policy_only() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.attr}"
        for path in ROOT.rglob("*.py")
        if not _may(path)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in DECIDING
        if (path.relative_to(ROOT).as_posix(), node.attr) != HANDED_ON
    }
    assert found == set()


OFFERING = {"offer", "select_builtins", "select_dynamic"}
"""Functions that make up what a model is offered."""


def test_turns_and_explanations_are_offered_tools_by_one_function() -> None:
    callers = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in OFFERING
    }
    assert callers == {"explaining.py"}


def _may(path: Path) -> bool:
    place = path.relative_to(ROOT).as_posix()
    return any(place == known or place.startswith(f"{known}/") for known in MAY_READ)
