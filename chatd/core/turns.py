"""A turn's states and the moves between them; the database's constraints repeat the closed set."""

from enum import StrEnum
from typing import Literal


class TurnStatus(StrEnum):
    QUEUED = "queued"
    """Behind another turn of the same chat."""
    PENDING = "pending"
    """Runnable; no worker owns it."""
    RUNNING = "running"
    """Claimed; the lease is live."""
    INTERRUPTING = "interrupting"
    """The user stopped it; its worker commits the partial answer."""
    REQUIRES_ACTION = "requires_action"
    """Waits for its open items: client tool results, answers, approvals."""
    COMPLETED = "completed"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


OnAuthRequired = Literal["skip", "wait"]
"""Whether a turn goes on without a server that its owner has to connect to, or waits for them."""

_S = TurnStatus

MOVES: dict[TurnStatus, frozenset[TurnStatus]] = {
    _S.QUEUED: frozenset({_S.PENDING, _S.CANCELLED}),
    _S.PENDING: frozenset({_S.RUNNING, _S.INTERRUPTED, _S.FAILED, _S.SUPERSEDED, _S.CANCELLED}),
    _S.RUNNING: frozenset(
        {
            _S.COMPLETED,
            _S.FAILED,
            _S.INTERRUPTING,
            _S.REQUIRES_ACTION,
            _S.PENDING,
            _S.SUPERSEDED,
            _S.CANCELLED,
        }
    ),
    _S.INTERRUPTING: frozenset({_S.INTERRUPTED, _S.SUPERSEDED, _S.CANCELLED}),
    _S.REQUIRES_ACTION: frozenset({_S.PENDING, _S.INTERRUPTED, _S.SUPERSEDED, _S.CANCELLED}),
    _S.COMPLETED: frozenset(),
    _S.INTERRUPTED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.SUPERSEDED: frozenset(),
}
"""What each status may become."""

ACTIVE = frozenset({_S.PENDING, _S.RUNNING, _S.INTERRUPTING, _S.REQUIRES_ACTION})
"""At most one of these per chat, held by a partial unique index."""

ENDED = frozenset(status for status, moves in MOVES.items() if not moves)


def chat_status(active: str | None, last: str | None) -> str:
    """The chat's status from its active turn's and its last ended turn's."""
    if active is not None:
        return active
    return "error" if last == _S.FAILED else "waiting"
