"""What becomes of a fresh tool list under the pins of its server."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import get_args
from uuid import UUID

import pytest

from chatd.core.pins import MAX_SEEN, Change, Pin, definition_hash, definition_of, spec_of
from chatd.core.servers import ToolChanges
from chatd.core.tools import ToolSpec
from chatd.policy.pins import Listed, Resolution, resolve, withdrawn
from tests.policy.made import make_spec

SERVER = UUID(int=1)
OLD = make_spec()
NEW = replace(OLD, description="Sends all your files away.")
NEWER = replace(OLD, title="Add")
BACK = replace(OLD, read_only=True)
OTHER = make_spec("other")
MODES: tuple[ToolChanges, ...] = get_args(ToolChanges)

PINNED = Pin(definition_hash(OLD), OLD, seen=frozenset({definition_hash(OLD)}))
PENDING = replace(PINNED, pending_hash=definition_hash(NEW))
AWAITED = Pin("", pending_hash=definition_hash(NEW))
FOLLOWED = Pin(definition_hash(NEW), NEW, seen=frozenset(map(definition_hash, (OLD, NEW))))
FULL = replace(PINNED, seen=frozenset(str(number) for number in range(MAX_SEEN)))


def decided(
    spec: ToolSpec, pins: Mapping[str, Pin], mode: ToolChanges, *, shared: bool = True
) -> tuple[ToolSpec | None, str]:
    """What is served of the one tool, and what its pin learns."""
    made = resolve(SERVER, [Listed(spec, definition_hash(spec))], pins, mode, shared=shared)
    served = made.served[0] if made.served else None
    assert [drop.reason for drop in made.quarantined] == ([] if served else ["changed"])
    assert all(change.hash == definition_hash(spec) for change in made.changes)
    return served, made.changes[0].kind if made.changes else "-"


TABLE: list[tuple[ToolChanges, Pin | None, ToolSpec, ToolSpec | None, str, str]] = [
    # mode, pin, listed, served, in a shared list, in a user's
    ("follow", None, NEW, NEW, "pin", "pin"),
    ("follow", PINNED, OLD, OLD, "-", "-"),
    ("follow", PINNED, NEW, NEW, "follow", "follow"),
    ("follow", PINNED, BACK, BACK, "follow", "follow"),
    ("follow", FOLLOWED, OLD, OLD, "follow", "-"),
    ("follow", FULL, NEW, NEW, "follow", "-"),
    ("follow", PENDING, OLD, OLD, "settle", "settle"),
    ("follow", PENDING, NEW, NEW, "follow", "follow"),
    ("follow", AWAITED, NEW, NEW, "follow", "follow"),
    ("hold", None, NEW, NEW, "pin", "pin"),
    ("hold", PINNED, OLD, OLD, "-", "-"),
    ("hold", PINNED, NEW, OLD, "flag", "flag"),
    ("hold", PINNED, BACK, OLD, "flag", "flag"),
    ("hold", PENDING, OLD, OLD, "settle", "-"),
    ("hold", PENDING, NEW, OLD, "-", "-"),
    ("hold", PENDING, NEWER, OLD, "flag", "-"),
    ("hold", replace(PINNED, spec=None), NEW, None, "flag", "flag"),
    ("hold", AWAITED, NEW, NEW, "follow", "follow"),
    ("quarantine", None, NEW, None, "flag", "flag"),
    ("quarantine", PINNED, OLD, OLD, "-", "-"),
    ("quarantine", PINNED, NEW, None, "flag", "flag"),
    ("quarantine", PINNED, BACK, None, "flag", "flag"),
    ("quarantine", PENDING, OLD, OLD, "settle", "-"),
    ("quarantine", PENDING, NEW, None, "-", "-"),
    ("quarantine", PENDING, NEWER, None, "flag", "-"),
    ("quarantine", AWAITED, NEW, None, "-", "-"),
]


@pytest.mark.parametrize(("mode", "pin", "listed", "served", "shared", "own"), TABLE)
def test_each_tool_is_decided_by_its_pin_and_the_mode(
    mode: ToolChanges,
    pin: Pin | None,
    listed: ToolSpec,
    served: ToolSpec | None,
    shared: str,
    own: str,
) -> None:
    """The server has another pinned tool, so this is not its first list."""
    pins = {"other": Pin("x")} | ({"add": pin} if pin else {})
    assert decided(listed, pins, mode) == (served, shared)
    assert decided(listed, pins, mode, shared=False) == (served, own)


@pytest.mark.parametrize("mode", MODES)
def test_the_first_list_of_a_server_is_pinned_as_it_is(mode: ToolChanges) -> None:
    listed = [Listed(spec, definition_hash(spec)) for spec in (OTHER, OLD)]
    made = resolve(SERVER, listed, {}, mode, shared=True)
    assert made.served == (OTHER, OLD)
    assert [change.kind for change in made.changes] == ["pin", "pin"]


@pytest.mark.parametrize("mode", MODES)
def test_a_tool_that_disappears_keeps_its_pin(mode: ToolChanges) -> None:
    pins = {"add": PINNED, "other": Pin(definition_hash(OTHER))}
    assert decided(OTHER, pins, mode) == (OTHER, "-")


# --- the decision, walked through with an independent account of what was written


def after(pins: Mapping[str, Pin], made: Resolution) -> dict[str, Pin]:
    """The pins when the changes are written, as the store does it."""
    return {**pins, **{change.spec.name: _moved(pins, change) for change in made.changes}}


def _moved(pins: Mapping[str, Pin], change: Change) -> Pin:
    pin = pins.get(change.spec.name, Pin(""))
    match change.kind:
        case "pin" | "follow":
            return Pin(change.hash, change.spec, "", pin.seen | {change.hash})
        case "flag":
            return replace(pin, pending_hash=change.hash)
        case "settle":
            return replace(pin, pending_hash="")


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_what_was_written_decides_the_same_and_writes_nothing_again(
    mode: ToolChanges, shared: bool
) -> None:
    variants = (OLD, NEW, NEWER, BACK)
    for steps in product(variants, repeat=4):
        pins: dict[str, Pin] = {}
        for spec in steps:
            listed = [Listed(spec, definition_hash(spec))]
            first = resolve(SERVER, listed, pins, mode, shared=shared)
            pins = after(pins, first)
            again = resolve(SERVER, listed, pins, mode, shared=shared)
            assert (again.served, again.quarantined) == (first.served, first.quarantined)
            assert again.changes == ()


@pytest.mark.parametrize("mode", MODES)
def test_users_who_see_different_definitions_do_not_flap(mode: ToolChanges) -> None:
    pins: dict[str, Pin] = {}
    written = 0
    for _ in range(50):
        for spec in (OLD, NEW, NEWER):
            listed = [Listed(spec, definition_hash(spec))]
            made = resolve(SERVER, listed, pins, mode, shared=False)
            written += len(made.changes)
            pins = after(pins, made)
    assert written <= 3


def test_a_definition_comes_back_from_its_json() -> None:
    spec = replace(NEW, title="T", read_only=True, idempotent=True, destructive=False)
    assert spec_of(definition_of(spec)) == spec


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pin", [PINNED, PENDING, None])
def test_a_tool_known_to_be_withdrawn_is_one_that_no_list_would_serve(
    mode: ToolChanges, pin: Pin | None
) -> None:
    """Of lists that everybody shares; what was last seen is what is listed next."""
    pins = {"other": replace(PINNED, spec=OTHER)} | ({OLD.name: pin} if pin else {})
    served, _ = decided(NEW if pin == PENDING else OLD, pins, mode)
    assert withdrawn(mode, as_pinned=pin == PINNED, shared=True) is (served is None)
    assert not withdrawn(mode, as_pinned=False, shared=False)
