"""The state machine as data."""

import pytest

from chatd.core.turns import ACTIVE, ENDED, MOVES, TurnStatus, chat_status


def test_every_status_has_its_moves() -> None:
    assert set(MOVES) == set(TurnStatus)
    assert {"queued"} | ACTIVE | ENDED == set(TurnStatus)
    assert not ACTIVE & ENDED


def test_every_status_is_reached_and_can_end() -> None:
    reached = {TurnStatus.QUEUED}
    while new := {to for status in reached for to in MOVES[status]} - reached:
        reached |= new
    assert reached == set(TurnStatus)
    for status in set(TurnStatus) - ENDED:
        assert MOVES[status] & (ENDED | ACTIVE)


def test_a_user_may_stop_or_leave_whatever_is_active() -> None:
    for status in ACTIVE:
        assert {TurnStatus.SUPERSEDED, TurnStatus.CANCELLED} <= MOVES[status]


@pytest.mark.parametrize(
    ("active", "last", "shown"),
    [
        (None, None, "waiting"),
        (None, "completed", "waiting"),
        (None, "interrupted", "waiting"),
        (None, "failed", "error"),
        ("running", "failed", "running"),
        ("requires_action", None, "requires_action"),
    ],
)
def test_a_chats_status(active: str | None, last: str | None, shown: str) -> None:
    assert chat_status(active, last) == shown
