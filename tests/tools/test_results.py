"""Reading on in a long result: nothing is lost, nothing is said twice, and there is an end."""

import re
from typing import Any

import pytest
from hypothesis import given, strategies as st

from chatd.core.budget import FLOOR
from chatd.core.tools import ToolResult
from chatd.tools.results import (
    MAX_MATCHES,
    WIDTH,
    line_of,
    read_result,
    result_id,
)

ID = "0190a0a0-0000-7000-8000-000000000001"
POEM = "\n".join(f"line {number}" for number in range(1, 1001))


def read(text: str, **arguments: Any) -> str:
    result = read_result(text, arguments, FLOOR)
    assert not result.is_error, result.text
    return result.text


def body(page: str) -> str:
    return page.partition("\n\n")[2]


def refused(**arguments: Any) -> str:
    result = read_result(POEM, arguments, FLOOR)
    assert (result.is_error, result.outcome) == (True, "failed")
    return result.text


@pytest.mark.parametrize(
    "arguments",
    [
        {"offset": 0},
        {"offset": -3},
        {"offset": "12"},
        {"offset": True},
        {"offset": 1.5},
        {"limit": 0},
        {"limit": []},
        {"offset": 1e300},
    ],
)
def test_numbers_that_are_none_are_explained(arguments: dict[str, Any]) -> None:
    assert refused(**arguments) == "offset and limit must be whole numbers from 1 on."


@pytest.mark.parametrize("search", [3, ["x"], "x" * 201])
def test_a_search_that_is_none_is_explained(search: Any) -> None:
    assert "search must be a string" in refused(search=search)


def test_an_offset_past_the_end_says_where_the_end_is() -> None:
    assert refused(offset=1001) == "offset 1001 is past the end: there are 1000 lines."


@pytest.mark.parametrize("value", [None, 7, "", "nonsense", "x" * 10_000])
def test_an_id_that_is_none_is_explained(value: Any) -> None:
    result = result_id({"id": value})
    assert isinstance(result, ToolResult)
    assert result.is_error
    assert len(result.text) < 200


def test_an_id_is_one_however_it_is_written() -> None:
    assert str(result_id({"id": ID})) == str(result_id({"id": ID.upper()})) == ID


def test_a_page_says_what_it_is_and_where_to_go_on() -> None:
    assert read(POEM, offset=3, limit=2) == (
        "Lines 3-4 of 1000. Continue with offset 5.\n\nline 3\nline 4\n"
    )
    assert read(POEM, offset=999) == "Lines 999-1000 of 1000.\n\nline 999\nline 1000"


def test_models_also_write_whole_numbers_as_floats() -> None:
    assert read(POEM, offset=3.0, limit=2.0) == read(POEM, offset=3, limit=2)


@given(
    st.lists(
        st.sampled_from(["", "a", "é" * 700, "🦜" * 2500, "x" * WIDTH, "y" * 9999]), max_size=9
    ),
    st.integers(1, 5),
)
def test_page_after_page_gives_the_whole_text(lines: list[str], times: int) -> None:
    text = "\n".join(lines * times)
    pages, offset = "", 1
    while offset:
        page = read(text, offset=offset)
        assert len(page.encode()) <= FLOOR
        pages += body(page)
        more = re.match(r"Lines .* Continue with offset (\d+)\.", page)
        offset = int(more[1]) if more else 0
    assert pages == text


@given(st.text("ab\n", max_size=50), st.integers(0, 49), st.sampled_from(["", "z" * 2500]))
def test_a_place_in_the_text_has_the_line_that_a_page_from_there_begins_with(
    text: str, position: int, before: str
) -> None:
    text = before + text
    position = min(position + len(before), max(len(text) - 1, 0))
    page = body(read(text, offset=line_of(text, position)))
    assert len(text) - len(page) <= position or not text


def test_a_search_shows_lines_with_their_numbers_and_those_around() -> None:
    assert read(POEM, search="LINE 500") == (
        "Matching lines from line 1 on of 1000: 1.\n\n"
        "498- line 498\n499- line 499\n500: line 500\n501- line 501\n502- line 502\n"
    )


def test_no_line_is_shown_twice_however_close_the_matches() -> None:
    found = body(read("a\nb\nneedle 1\nneedle 2\nc\nd\ne\nf\nneedle 3", search="needle"))
    assert found == ("1- a\n2- b\n3: needle 1\n4: needle 2\n5- c\n6- d\n7- e\n8- f\n9: needle 3\n")
    assert body(read(POEM, search="line 10", limit=2)).count("--\n") == 1


def test_a_search_that_finds_much_goes_on_where_it_stopped() -> None:
    seen: list[str] = []
    offset = 1
    while offset:
        page = read(POEM, search="line", offset=offset)
        assert len(page.encode()) <= FLOOR
        more = re.search(r"continue with offset (\d+)\.", page)
        shown = re.findall(r"^(\d+): ", body(page), re.MULTILINE)
        new = [number for number in shown if int(number) < (int(more[1]) if more else 9999)]
        assert len(new) <= MAX_MATCHES
        seen += [number for number in new if int(number) >= offset]
        offset = int(more[1]) if more else 0
    assert seen == [str(number) for number in range(1, 1001)]


def test_a_search_that_finds_nothing_says_so() -> None:
    assert read(POEM, search="zzz", offset=7) == "No line from line 7 on of 1000 contains 'zzz'."


@pytest.mark.parametrize(
    ("text", "search"),
    [("a (b|c)* [", "(B|C)* ["), ("İstanbul ÇAĞ", "çağ"), ("ΟΔΟΣ", "οδος"), ("x" * 3000, "xX")],
)
def test_a_search_is_for_the_text_itself_in_any_case(text: str, search: str) -> None:
    assert "Matching lines" in read(text, search=search)


def test_what_lies_across_two_pieces_of_a_long_line_is_found() -> None:
    text = "x" * (WIDTH - 2) + "needle" + "x" * 5000
    assert read(text, search="needle").startswith("Matching lines from line 1 on of 7: 1.\n\n1: x")


def test_wide_lines_that_match_still_fit() -> None:
    text = "\n".join(["🦜" * WIDTH] * 50)
    page = read(text, search="🦜")
    assert len(page.encode()) <= FLOOR
    assert "continue with offset" in page


def test_an_empty_result_is_one_empty_line() -> None:
    assert read("") == "Lines 1-1 of 1.\n\n"
