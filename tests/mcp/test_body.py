"""What comes off the wire is made readable, bounded, and never an exception."""

import orjson
import pytest
from hypothesis import given, strategies as st

from chatd.mcp.body import readable
from chatd.mcp.errors import redacted


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (rb'"a\ud83d"', rb'"a\ufffd"'),
        (rb'"\ude00a"', rb'"\ufffda"'),
        (rb'"\ud83d\ude00"', rb'"\ud83d\ude00"'),
        (rb'"\uD83D\u0041"', rb'"\ufffd\u0041"'),
        (rb'"\\ud83d"', rb'"\\ud83d"'),
        (rb'"\\\ud83d"', rb'"\\\ufffd"'),
        (b'"a\xffb"', '"a\ufffdb"'.encode()),
        ('"h\u00e9"'.encode(), '"h\u00e9"'.encode()),
    ],
)
def test_what_the_parser_would_refuse_is_replaced(raw: bytes, clean: bytes) -> None:
    assert readable(raw) == clean
    orjson.loads(readable(raw))


@given(st.text())
def test_good_json_passes_unchanged(text: str) -> None:
    for raw in (orjson.dumps(text.encode("utf-8", "replace").decode()), b'"plain"'):
        assert readable(raw) == raw


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://u:p@h.example/a?token=1#f now", "see https://h.example/a now"),
        ("a\n b\x00", "a b\ufffd"),
        ("HTTP://h/?q=1&r=2", "HTTP://h/"),
        ("x" * 600, "x" * 499 + "…"),
    ],
)
def test_messages_hold_no_secret_part_of_a_url(text: str, shown: str) -> None:
    assert redacted(text) == shown
