"""Text that PostgreSQL and JSON can hold, and instants in one spelling."""

from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given, strategies as st

from chatd.core.text import REPLACEMENT, bare, clean, clean_json, holds
from chatd.core.times import rfc3339

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=[]))


@given(ANY_TEXT)
def test_cleaned_text_can_be_held(text: str) -> None:
    cleaned = clean(text)
    assert holds(cleaned)
    assert "\x00" not in cleaned
    assert orjson.loads(orjson.dumps(cleaned)) == cleaned
    assert clean(cleaned) is cleaned


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")))
def test_text_that_can_be_held_is_left_alone(text: str) -> None:
    assert clean(text) is text


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("a\x00b", f"a{REPLACEMENT}b"),
        ("\ud800", REPLACEMENT),
        ("a\udc00b\ud800", f"a{REPLACEMENT}b{REPLACEMENT}"),
        ("\ud83d\ude00", "😀"),  # two halves that belong together
        ("žluť 🐎", "žluť 🐎"),
    ],
)
def test_what_cannot_be_held_is_replaced(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@pytest.mark.parametrize("text", ["🏳️‍🌈", "👩‍❤️‍💋‍👨", "می‌خواهم", "क्‍ष", "葛\U000e0100"])
def test_what_a_script_or_a_flag_needs_is_left_alone(text: str) -> None:
    assert bare(text) == text


def test_every_string_of_a_value_is_cleaned() -> None:
    dirty = {"k\x00": ["\ud800", 1, None, True, 1.5, ("\x00",)], "n": {"\udfff": "x"}}
    assert clean_json(dirty) == {
        f"k{REPLACEMENT}": [REPLACEMENT, 1, None, True, 1.5, [REPLACEMENT]],
        "n": {REPLACEMENT: "x"},
    }


@pytest.mark.parametrize("fraction", ["", ".5", ".120000", ".123456"])
def test_an_instant_from_json_is_spelled_like_one_from_a_row(fraction: str) -> None:
    micros = int(f"{fraction[1:]:0<6}") if fraction else 0
    instant = datetime(2026, 11, 20, 1, 2, 3, micros, tzinfo=UTC)
    assert rfc3339(f"2026-11-20T01:02:03{fraction}+00:00") == rfc3339(instant)


def test_no_instant_stays_none() -> None:
    assert rfc3339(None) is None
