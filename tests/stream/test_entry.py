"""Entries survive the way over Redis."""

from uuid import UUID

import orjson
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from chatd.stream.entry import Entry, Event, hint, pack, render, unpack

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["message", "message_part", "status"]),
        st.text(st.characters(exclude_categories=["Cs"])).map(
            lambda text: orjson.dumps({"text": text})
        ),
    ),
    max_size=4,
).map(tuple)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # of a busy machine
@given(
    events=EVENTS,
    numbers=st.lists(st.integers(0, 2**53), min_size=6, max_size=6),
    ids=st.lists(st.integers(1, 2**53)),
    turn=st.none() | st.uuids().map(str),
    ended=st.booleans(),
)
def test_what_is_unpacked_is_what_was_packed(
    events: tuple[Event, ...], numbers: list[int], ids: list[int], turn: str | None, *, ended: bool
) -> None:
    version, attempt, commits, start, first, last = numbers
    entry = Entry(version, turn, attempt, commits, start, first, last, events, tuple(ids), ended)
    assert unpack(pack(entry)) == entry


def test_an_event_says_what_it_is_and_where_it_belongs() -> None:
    kind, event = render("retry", str(UUID(int=1)), None, 2, 7, {"retry": {"a": "line\nbreak"}})
    assert kind == "retry"
    assert event == (
        b'{"type":"retry","chat_id":"00000000-0000-0000-0000-000000000001","turn_id":null,'
        b'"attempt":2,"seq":7,"retry":{"a":"line\\nbreak"}}'
    )


def test_a_hint_is_no_preview() -> None:
    assert not hint(3).is_preview
    assert hint(3).version == 3


@pytest.mark.parametrize("payload", [b"", b"x", b"[1,2,3]", b'{"a":1}', b"[1,2,3,4,5,6,7,8,9,10]"])
def test_another_releases_entry_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        unpack(payload)
