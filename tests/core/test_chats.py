"""What a chat is called before anybody names it."""

import pytest

from chatd.core.chats import fallback_title
from chatd.core.messages import FileReferencePart, Part, TextPart

FILE = FileReferencePart(
    type="file-reference", file_name="a.py", start_line=1, end_line=2, content="x"
)


def said(*texts: str) -> list[Part]:
    return [TextPart(type="text", text=text) for text in texts]


@pytest.mark.parametrize(
    ("content", "title"),
    [
        (said("hello there"), "hello there"),
        (said("  one two\nthree\tfour five six  "), "one two three four five six"),
        (said("one two three four five six seven"), "one two three four five six…"),
        (said("", "  ", "second"), "second"),
        ([FILE, *said("look at this")], "look at this"),
        ([FILE], "New Chat"),
        (said(" "), "New Chat"),
        (said("x" * 80), "x" * 80),
        (said("x" * 81), "x" * 79 + "…"),
        (said("x" * 78 + " yyy"), "x" * 78 + "…"),
    ],
)
def test_a_chat_is_called_by_its_first_words(content: list[Part], title: str) -> None:
    assert fallback_title(content) == title
    assert len(title) <= 80
