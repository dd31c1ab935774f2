"""When tokens are renewed, as a table."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from chatd.credentials.timing import Age, age_of, pause_s, share_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = 3600.0


@pytest.mark.parametrize(
    ("left_s", "lifetime_s", "share", "age"),
    [
        (HOUR, HOUR, 0.0, "fresh"),
        (121, HOUR, 0.0, "fresh"),
        (120, HOUR, 0.0, "due"),
        (100, HOUR, 0.5, "fresh"),  # left to other processes
        (96, HOUR, 0.5, "due"),
        (73, HOUR, 1.0, "fresh"),
        (72, HOUR, 1.0, "due"),
        (11, HOUR, 0.0, "due"),
        (10, HOUR, 0.0, "ending"),
        (0.001, HOUR, 0.0, "ending"),
        (0, HOUR, 0.0, "over"),
        (-5, HOUR, 0.0, "over"),
        (0.51, 2, 0.0, "fresh"),  # a quarter of what lives shortly
        (0.5, 2, 0.0, "due"),
        (0.3, 2, 1.0, "due"),
        (0.25, 2, 0.0, "ending"),
        (120, None, 0.0, "due"),  # of unknown lifetime
        (121, None, 0.0, "fresh"),
    ],
)
def test_a_token_is_renewed_ahead_by_each_process_at_its_own_time(
    left_s: float, lifetime_s: float | None, share: float, age: Age
) -> None:
    expires_at = NOW + timedelta(seconds=left_s)
    assert age_of(expires_at, lifetime_s, now=NOW, share=share) == age


def test_a_token_without_an_end_is_fresh() -> None:
    assert age_of(None, None, now=NOW, share=0.0) == "fresh"


@pytest.mark.parametrize(
    ("lifetime_s", "left_s", "age"),
    [(HOUR, 601, "fresh"), (HOUR, 600, "due"), (300, 76, "fresh"), (300, 75, "due")],
)
def test_a_login_is_renewed_ten_minutes_ahead_if_it_lives_that_long(
    lifetime_s: float, left_s: float, age: Age
) -> None:
    expires_at = NOW + timedelta(seconds=left_s)
    assert age_of(expires_at, lifetime_s, now=NOW, share=0.0, ahead_s=600) == age


def test_processes_and_tokens_differ_and_stay_as_they_are() -> None:
    tokens = [UUID(int=number) for number in range(100)]
    shares = [share_of(token, process) for token in tokens for process in (b"a", b"b")]
    assert len(set(shares)) == 200
    assert shares == [share_of(token, process) for token in tokens for process in (b"a", b"b")]
    assert (min(shares) < 0.1, max(shares) > 0.9, max(shares) < 1) == (True, True, True)


def test_a_server_that_goes_on_failing_is_asked_less_and_less() -> None:
    pauses = [pause_s(failures, share=0.0) for failures in (1, 2, 3, 4, 5, 6, 100_000)]
    assert pauses == [1, 2, 4, 8, 15, 15, 15]
    assert pause_s(1, share=1.0) == 0.5
