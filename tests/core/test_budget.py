"""How much text the model is given, and what is left of more."""

import pytest
from hypothesis import given, strategies as st

from chatd.core.budget import FLOOR, budget, cap


@pytest.mark.parametrize(
    ("window", "size"),
    [(0, 65_536), (-1, 65_536), (1000, 16_384), (128_000, 127_998), (1_000_000, 999_999)],
)
def test_the_budget_is_a_third_of_the_window_at_three_bytes_a_token(window: int, size: int) -> None:
    assert budget(window) == size


def test_a_long_text_keeps_two_thirds_of_its_head_and_its_tail() -> None:
    text = "a" * 100_000 + "b" * 100_000
    shown = cap(text, FLOOR)
    head, marker, tail = shown.split("\n")
    assert (set(head), set(tail)) == ({"a"}, {"b"})
    assert len(head) == (FLOOR - 256) * 2 // 3
    removed = len(text) - len(head) - len(tail)
    assert marker == f"[… {removed} of 200000 bytes of this result were removed here …]"


@given(st.text(min_size=0, max_size=9000), st.integers(1, 4))
def test_a_capped_text_is_valid_and_within_its_limit(text: str, times: int) -> None:
    shown = cap(text * times, FLOOR)
    assert len(shown.encode()) <= FLOOR
    assert shown == text * times or "removed here" in shown


@pytest.mark.parametrize("letter", ["é", "日", "🦜"])
def test_no_letter_is_cut_in_two(letter: str) -> None:
    for limit in range(FLOOR, FLOOR + 4):
        head, _, tail = cap(letter * 50_000, limit).split("\n")
        assert set(head) == set(tail) == {letter}
