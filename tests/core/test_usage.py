"""What a period is, and what a user may spend in it."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from chatd.core.config import Period, UsageLimits
from chatd.core.usage import Standing, estimated_usage, limit_for, window

NOON = datetime(2026, 3, 11, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("period", "now", "start", "end"),
    [
        ("day", "2026-03-11T12:30:00.5+00:00", "2026-03-11", "2026-03-12"),
        ("day", "2026-03-11T00:00:00+00:00", "2026-03-11", "2026-03-12"),
        ("day", "2026-12-31T23:59:59+00:00", "2026-12-31", "2027-01-01"),
        ("day", "2024-02-28T23:59:59+00:00", "2024-02-28", "2024-02-29"),
        ("day", "2026-03-29T02:30:00+00:00", "2026-03-29", "2026-03-30"),  # summer time elsewhere
        ("week", "2026-03-11T12:30:00+00:00", "2026-03-09", "2026-03-16"),
        ("week", "2026-03-09T00:00:00+00:00", "2026-03-09", "2026-03-16"),
        ("week", "2026-03-15T23:59:59+00:00", "2026-03-09", "2026-03-16"),
        ("week", "2026-01-01T00:00:00+00:00", "2025-12-29", "2026-01-05"),
        ("month", "2026-02-28T12:00:00+00:00", "2026-02-01", "2026-03-01"),
        ("month", "2024-02-29T12:00:00+00:00", "2024-02-01", "2024-03-01"),
        ("month", "2026-12-31T23:59:59+00:00", "2026-12-01", "2027-01-01"),
        ("month", "2026-01-31T00:00:00+00:00", "2026-01-01", "2026-02-01"),
    ],
)
def test_a_period_is_counted_in_utc(period: Period, now: str, start: str, end: str) -> None:
    found = window(period, datetime.fromisoformat(now))
    assert [found.start.isoformat(), found.end.isoformat()] == [
        f"{start}T00:00:00+00:00",
        f"{end}T00:00:00+00:00",
    ]


def test_an_instant_of_another_zone_counts_where_it_is_in_utc() -> None:
    east = timezone(timedelta(hours=10))
    found = window("day", datetime(2026, 3, 11, 5, tzinfo=east))
    assert found.start == datetime(2026, 3, 10, tzinfo=UTC)


@pytest.mark.parametrize("period", ["day", "week", "month"])
def test_a_period_begins_where_the_one_before_ends(period: Period) -> None:
    found = window(period, NOON)
    assert window(period, found.end).start == found.end
    assert window(period, found.end - timedelta(microseconds=1)) == found


@pytest.mark.parametrize(
    ("limits", "override", "expected"),
    [
        ({"enabled": False, "default_limit_micros": 5}, None, (None, "disabled")),
        ({"enabled": False, "default_limit_micros": 5}, 7, (None, "disabled")),
        ({"enabled": True, "default_limit_micros": 5}, None, (5, "default")),
        ({"enabled": True, "default_limit_micros": 5}, 7, (7, "user")),
        ({"enabled": True, "default_limit_micros": 5}, 0, (0, "user")),
        ({"enabled": True, "default_limit_micros": 5}, -1, (None, "user")),
    ],
)
def test_a_users_own_limit_stands_before_the_default(
    limits: dict[str, Any], override: int | None, expected: tuple[int | None, str]
) -> None:
    assert limit_for(UsageLimits(**limits), override) == expected


@pytest.mark.parametrize(
    ("spent", "limit", "exceeded"),
    [(9, 10, False), (10, 10, True), (11, 10, True), (0, 0, True), (10**12, None, False)],
)
def test_a_limit_that_is_reached_is_used_up(spent: int, limit: int | None, exceeded: bool) -> None:
    found = Standing(True, "month", spent, limit, "default", NOON)
    assert found.exceeded is exceeded


def test_a_token_is_estimated_at_four_bytes_and_never_at_none() -> None:
    assert estimated_usage(9, 4)["input_tokens"] == 3
    assert estimated_usage(9, 1)["total_tokens"] == 4
    assert estimated_usage(0, 0)["total_tokens"] == 0
