"""Cursors: opaque to clients, and refused when they are not ours."""

import pytest

from chatd.api.frames import Cursor


@pytest.mark.parametrize("text", ["0-0-0-0", "12-345-6-78", f"{10**18 - 1}-1-1-1"])
def test_a_cursor_reads_back(text: str) -> None:
    cursor = Cursor.parse(text)
    assert cursor is not None
    assert cursor.encode().decode() == text


@pytest.mark.parametrize(
    "text", ["", "1", "1-2-3", "1-2-3-4-5", "a-b-c-d", "-1-2-3-4", "1-2-3-4\n", f"{10**18}-1-1-1"]
)
def test_anything_else_is_no_cursor(text: str) -> None:
    assert Cursor.parse(text) is None
