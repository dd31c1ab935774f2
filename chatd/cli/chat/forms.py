"""A server's form, filled in field by field."""

import math
from typing import Any, cast

from chatd.cli.chat.telling import Screen
from chatd.cli.chat.wording import short
from chatd.mcp.forms import form_problem

_YES = {"y", "yes", "true", "1"}
_NO = {"n", "no", "false", "0"}
_MISSING = object()


class Ended(Exception):
    """The person does not want to fill it in: `action` is decline or cancel."""

    def __init__(self, action: str) -> None:
        super().__init__(action)
        self.action = action


def fill(screen: Screen, schema: dict[str, Any]) -> dict[str, Any]:
    """The form's content. What does not fit its field is asked again. Raises `Ended`."""
    required = cast(list[str], schema.get("required") or [])
    fields = cast(dict[str, dict[str, Any]], schema.get("properties") or {})
    content = dict[str, Any]()
    for name, field in fields.items():
        _explain(screen, field)
        value = _ask(screen, name, field, required=name in required)
        if value is not _MISSING:
            content[name] = value
    return content


def _explain(screen: Screen, field: dict[str, Any]) -> None:
    if field.get("description"):
        screen.line(f"  {short(field['description'])}", style="dim")
    for number, (value, title) in enumerate(_choices(field), 1):
        screen.line(f"  {number}. {short(str(value) if title == value else f'{title} ({value})')}")


def _ask(screen: Screen, name: str, field: dict[str, Any], *, required: bool) -> Any:
    prompt = f"  {short(_label(name, field, required=required))}: "
    while True:
        said = _line(screen, prompt)
        if not said and "default" in field:
            return field["default"]
        if not said and not required:
            return _MISSING
        value, problem = _checked(name, field, said)
        if problem is None:
            return value
        screen.aside(short(problem))


def _line(screen: Screen, prompt: str) -> str:
    try:
        said = screen.ask(prompt).strip()
    except EOFError:
        said = "!cancel"
    if said in ("!decline", "!cancel"):
        raise Ended(said[1:])
    return said


def _checked(name: str, field: dict[str, Any], said: str) -> tuple[Any, str | None]:
    """The value, and what is wrong with it."""
    if not said:
        return None, "This is needed."
    try:
        value = read_value(field, said)
    except ValueError as error:
        return None, str(error)
    return value, form_problem({"properties": {name: field}}, {name: value})


def read_value(field: dict[str, Any], said: str) -> Any:
    """What the person means, as the field's type has it. Raises `ValueError` in words for them."""
    match field.get("type"):
        case "boolean":
            return _boolean(said)
        case "integer" | "number" as kind:
            return _number(said, whole=kind == "integer")
        case "array":
            choices = _choices(field.get("items") or {})
            words = [word.strip() for word in said.split(",")]
            return [_chosen(choices, word) for word in words if word]
        case _:
            return _chosen(_choices(field), said)


def _boolean(said: str) -> bool:
    if said.lower() in _YES:
        return True
    if said.lower() in _NO:
        return False
    raise ValueError("Please answer y or n.")


def _number(said: str, *, whole: bool) -> int | float:
    try:
        return int(said)
    except ValueError:
        pass
    try:
        value = float(said)
    except ValueError:
        value = math.nan
    if whole or not math.isfinite(value):
        raise ValueError("This takes a whole number." if whole else "This takes a number.")
    return value


def _choices(field: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Values and what they are called, in each of the ways a form may list them."""
    if field.get("type") == "array":
        return _choices(field.get("items") or {})
    titled = field.get("oneOf") or field.get("anyOf")
    if isinstance(titled, list):
        options = cast(list[dict[str, Any]], titled)
        return [(each.get("const"), each.get("title", each.get("const"))) for each in options]
    values = cast(list[Any], field.get("enum") or [])
    names = cast(list[Any], field.get("enumNames") or [])
    return list(zip(values, names if len(names) == len(values) else values, strict=True))


def _chosen(choices: list[tuple[Any, Any]], said: str) -> Any:
    """One of the choices, by its value, its name or its number; without choices, what was said."""
    if not choices:
        return said
    for value, title in choices:
        if said in (str(value), str(title)):
            return value
    if said.isdecimal() and 1 <= int(said) <= len(choices):
        return choices[int(said) - 1][0]
    raise ValueError(f"Please choose 1 to {len(choices)}.")


def _label(name: str, field: dict[str, Any], *, required: bool) -> str:
    hints = [_hint(field)] if _hint(field) else []
    if "default" in field:
        hints.append(f"default {field['default']}")
    elif not required:
        hints.append("optional")
    label = str(field.get("title") or name)
    return f"{label} [{', '.join(hints)}]" if hints else label


def _hint(field: dict[str, Any]) -> str:
    match field.get("type"):
        case "boolean":
            return "y/n"
        case "array":
            return "several, with commas"
        case "integer" | "number" as kind:
            return kind
        case _:
            return str(field.get("format") or "")
