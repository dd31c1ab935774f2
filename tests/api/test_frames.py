"""Cursors: opaque to clients, and refused when they are not ours."""

from uuid import UUID

import pytest

from chatd.api.frames import Cursor


@pytest.mark.parametrize(
    "text", ["0-0-0-0-00000000", "12-345-6-78-0a0b0c0d", f"{10**18 - 1}-1-1-1-ffffffff"]
)
def test_a_cursor_reads_back(text: str) -> None:
    cursor = Cursor.parse(text)
    assert cursor is not None
    assert cursor.encode().decode() == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1-2-3-4",
        "1-2-3-4-5",
        "1-2-3-4-5-00000000",
        "a-b-c-d-00000000",
        "-1-2-3-4-00000000",
        "1-2-3-4-00000000\n",
        "1-2-3-4-0000000G",
        f"{10**18}-1-1-1-00000000",
    ],
)
def test_anything_else_is_no_cursor(text: str) -> None:
    assert Cursor.parse(text) is None


def test_two_chats_have_different_cursors_for_the_same_place() -> None:
    one, other = (Cursor.of(UUID(int=number), 3, 8) for number in (1, 2))
    assert one != other
    assert one.encode() != other.encode()
