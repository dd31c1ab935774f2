"""What becomes of a fresh tool list under the pins of its server.

A pin belongs to a server and a tool's name, whoever asked for the list: an administrator looks at
one definition of a tool and not at one for each user. A server may still show users different
definitions of one tool, and their lists come in turns. So that nothing flaps:

- `follow`: a definition that was followed before moves no pin again, and after `MAX_SEEN`
  definitions of one tool none does. Every user is served what the server shows them.
- `hold` and `quarantine`: everybody gets the pinned definition, or nothing. The change that waits
  for an administrator is the first one seen and stays until they act: the list of another user
  neither replaces it nor takes it back.

A list that everybody shares cannot flap in this way: there every change counts, also one back to
what was before.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from chatd.core.pins import MAX_SEEN, Change, ChangeKind, Pin
from chatd.core.servers import ToolChanges
from chatd.core.tools import Dropped, ToolSpec


@dataclass(frozen=True, slots=True)
class Listed:
    """A tool of a fresh list, and its definition's hash."""

    spec: ToolSpec
    hash: str


@dataclass(frozen=True, slots=True)
class Resolution:
    """What is served of a list, in its order, and what its server's pins have to learn."""

    served: tuple[ToolSpec, ...]
    quarantined: tuple[Dropped, ...]
    changes: tuple[Change, ...]


def resolve(
    server_id: UUID,
    listed: Iterable[Listed],
    pins: Mapping[str, Pin],
    mode: ToolChanges,
    *,
    shared: bool,
) -> Resolution:
    """Decides about each tool; `pins` are all of the server's, `shared` is a list of everybody's.

    A tool that is not in the list keeps its pin. The tools of a server without any pin are pinned
    as they are. A new tool of a server with pins is quarantined in `quarantine` mode until it is
    accepted; in `hold` mode it is offered and pinned at first sight: `hold` keeps the words that an
    administrator has seen, and who wants no new tools has the allow list or `quarantine`.
    """
    served: list[ToolSpec] = []
    quarantined: list[Dropped] = []
    changes: list[Change] = []
    for tool in listed:
        pin = pins.get(tool.spec.name)
        if pin is None and (mode != "quarantine" or not pins):
            spec, kind = tool.spec, "pin"
        else:
            spec, kind = _decide(tool, pin or Pin(""), mode, shared=shared)
        if kind is not None:
            changes.append(Change(kind, tool.spec, tool.hash))
        if spec is not None:
            served.append(spec)
        else:
            quarantined.append(Dropped(tool.spec.name, "changed", server_id, rule="tool_changes"))
    return Resolution(tuple(served), tuple(quarantined), tuple(changes))


def _decide(
    tool: Listed, pin: Pin, mode: ToolChanges, *, shared: bool
) -> tuple[ToolSpec | None, ChangeKind | None]:
    """What is served of a tool with a pin, and what its pin has to learn."""
    if tool.hash == pin.definition_hash:
        settled = pin.pending_hash and (shared or mode == "follow")
        return tool.spec, "settle" if settled else None
    if mode == "follow" or (mode == "hold" and not pin.definition_hash):
        known = tool.hash in pin.seen or len(pin.seen) >= MAX_SEEN
        return tool.spec, "follow" if shared or not known else None
    news = tool.hash != pin.pending_hash and (shared or not pin.pending_hash)
    return (pin.spec if mode == "hold" else None), "flag" if news else None


def withdrawn(mode: ToolChanges, *, as_pinned: bool, shared: bool) -> bool:
    """Whether a tool is known to be served to nobody, though its server is not asked.

    Where users have lists of their own, the change may be another user's: only a fresh list tells.
    """
    return mode == "quarantine" and shared and not as_pinned
