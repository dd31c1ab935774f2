"""A reader's rules, one by one: what it shows, what it drops, when it has to read the rows."""

from dataclasses import replace
from uuid import UUID

import orjson
import pytest

from chatd.api.following import Reader
from chatd.api.frames import Cursor
from chatd.stream.entry import Entry, hint
from tests.api.entries import CHAT, OTHER, OWN, commit, event, ids, preview, state, told, turn_state


@pytest.fixture
def reader() -> Reader:
    """It knows a running turn as of version 2, whose live numbers begin with 2."""
    reader = Reader(CHAT)
    reader.begin(Cursor.of(CHAT, 1, 10))
    assert told(reader.take(commit(2, "status", commits=0))) == ["status"]
    return reader


# --- previews


def test_a_preview_is_shown_as_it_grows(reader: Reader) -> None:
    assert told(reader.take(preview("a b", 2))) == ["message_part:a", "message_part:b"]
    assert told(reader.take(preview("c", 4))) == ["message_part:c"]
    assert not reader.behind


def test_what_was_shown_is_not_shown_again(reader: Reader) -> None:
    for entry in (preview("a b", 2), preview("c", 4)):
        reader.take(entry)
    assert reader.take(preview("a b", 2)) == reader.take(preview("c", 4)) == b""


def test_a_gap_withdraws_the_preview_until_the_next_commit(reader: Reader) -> None:
    reader.take(preview("a", 2))
    assert told(reader.take(preview("c", 4))) == ["preview_reset"]
    for entry in (preview("d", 5), preview("b", 3), preview("e f", 6)):
        assert reader.take(entry) == b""
    assert told(reader.take(commit(3, "message", first=8))) == ["message"]
    assert told(reader.take(preview("g", 9, commits=1, start=9))) == ["message_part:g"]
    assert not reader.behind


def test_a_preview_whose_beginning_is_missing_is_not_shown(reader: Reader) -> None:
    assert reader.take(preview("b", 3)) == b""
    assert reader.take(preview("c", 4)) == b""
    assert reader.take(commit(3, "message", first=5))
    assert not reader.behind


def test_events_lost_with_a_commit_cost_the_rest_of_the_step(reader: Reader) -> None:
    reader.take(preview("a", 2))
    assert told(reader.take(preview("c", 5, start=4))) == ["preview_reset"]


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(preview("x", 9, attempt=0), id="an overtaken attempt"),
        pytest.param(preview("x", 9, commits=-1), id="an earlier step"),
    ],
)
def test_old_previews_are_dropped_without_asking(reader: Reader, entry: Entry) -> None:
    reader.take(preview("a", 2))
    assert reader.take(entry) == b""
    assert not reader.behind
    assert told(reader.take(preview("b", 3))) == ["message_part:b"]


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(preview("x", 2, attempt=2), id="a new attempt"),
        pytest.param(preview("x", 2, turn=OTHER), id="another turn"),
        pytest.param(preview("x", 9, commits=1, start=9), id="a later step"),
    ],
)
def test_a_preview_of_what_nothing_announced_makes_it_read(reader: Reader, entry: Entry) -> None:
    assert reader.take(entry) == b""
    assert reader.behind


def test_a_new_attempt_withdraws_what_the_old_one_showed(reader: Reader) -> None:
    reader.take(preview("a", 2))
    frames = reader.take(commit(3, "status", attempt=2, commits=0))
    assert told(frames) == ["preview_reset", "status"]
    assert reader.take(preview("b", 3)) == b""
    assert told(reader.take(preview("c", 2, attempt=2))) == ["message_part:c"]


def test_a_withdrawn_preview_is_not_withdrawn_twice(reader: Reader) -> None:
    reader.take(preview("a", 2))
    seq = 3
    reset = event("preview_reset", OWN, 1, seq, {})
    reader.take(Entry(0, str(OWN), 1, 0, 2, seq, seq, (reset,)))
    assert told(reader.take(commit(3, "status", attempt=2, commits=0))) == ["status"]


# --- commits


def test_the_next_version_is_taken_from_its_entry(reader: Reader) -> None:
    frames = reader.take(commit(3, "message", "message", "status", first=2))
    assert told(frames) == ["message", "message", "status"]
    assert ids(frames) == ["2-30-1-1", "2-31-1-1", "3-31-1-4"]  # whole only with the last
    assert reader.cursor == Cursor.of(CHAT, 3, 31).at(attempt=1, seq=4)


def test_what_it_knows_already_is_dropped(reader: Reader) -> None:
    for version in (1, 2):
        assert reader.take(commit(version, "message")) == b""
    assert not reader.behind


@pytest.mark.parametrize("entry", [commit(4, "message"), hint(3), hint(9)])
def test_a_jump_or_a_bare_hint_makes_it_read(reader: Reader, entry: Entry) -> None:
    assert reader.take(entry) == b""
    assert reader.behind
    assert reader.cursor.version == 2


def test_versions_in_the_wrong_order_are_told_once(reader: Reader) -> None:
    reader.take(preview("a", 2))
    assert reader.take(commit(4, "status", first=4, commits=2)) == b""
    assert reader.behind
    rows = state(4, turn_state("running", 4, commits=2), messages=(30, 40))
    frames = reader.catch_up(rows)
    assert told(frames)[:3] == ["preview_reset", "message", "message"]
    assert not reader.behind
    for late in (commit(3, "message", first=3), commit(4, "status", first=4, commits=2)):
        assert reader.take(late) == b""
    assert not reader.behind
    assert told(reader.take(commit(5, "status", first=5, commits=3))) == ["status"]


# --- rows


def test_a_first_snapshot_tells_of_everything_and_the_current_turn() -> None:
    reader = Reader(CHAT)
    turns = turn_state("completed", 4, turn=OTHER), turn_state("pending", 5)
    frames = reader.catch_up(state(5, *turns, messages=(1, 2), queue=1))
    assert told(frames) == ["message", "message", "queue_update", "turn", "status"]
    assert ids(frames) == ["0-1-0-0", "0-2-0-0", "0-2-0-0", "5-2-0-0", "5-2-0-0"]
    assert reader.catch_up(state(5, *turns, queue=1)) == b""


def test_every_turn_that_changed_is_told_of(reader: Reader) -> None:
    turns = (
        turn_state("completed", 1, turn=UUID(int=9)),
        turn_state("completed", 3),
        turn_state("pending", 4, turn=OTHER),
    )
    frames = reader.catch_up(state(4, *turns))
    assert told(frames) == ["queue_update", "turn", "status", "turn", "status"]
    statuses = [orjson.loads(line[6:]) for line in frames.split(b"\n") if b'"status":"c' in line]
    assert [status["chat_status"] for status in statuses[1:]] == ["pending"]


def test_an_unchanged_queue_is_not_told_again(reader: Reader) -> None:
    running = turn_state("running", 2)
    assert told(reader.catch_up(state(3, running, queue=1))) == ["queue_update"]
    assert told(reader.catch_up(state(4, running, queue=1))) == []
    assert told(reader.catch_up(state(5, running, queue=2))) == ["queue_update"]
    assert told(reader.catch_up(state(6, running))) == ["queue_update"]


def test_a_preview_goes_on_over_what_does_not_concern_it(reader: Reader) -> None:
    reader.take(preview("a", 2))
    reader.catch_up(state(3, turn_state("running", 2), queue=1))
    assert told(reader.take(preview("b", 3))) == ["message_part:b"]


def test_a_replayed_preview_and_its_live_rest_are_one(reader: Reader) -> None:
    back = Reader(CHAT)
    back.begin(Cursor.of(CHAT, 2, 10).at(attempt=1, seq=3))
    frames = back.catch_up(state(2, turn_state("running", 2)), repeat=True)
    assert told(frames) == ["preview_reset", "queue_update", "turn", "status"]
    kept = [
        preview("old", 2, attempt=0),
        preview("a", 2),
        preview("b", 3),
        preview("x", 9, commits=1, start=9),
    ]
    assert told(back.replay(kept)) == ["message_part:a", "message_part:b"]
    assert back.take(preview("b", 3)) == b""
    assert told(back.take(preview("c", 4))) == ["message_part:c"]


@pytest.mark.parametrize("status", ["completed", "failed", "interrupted", "pending"])
def test_a_turn_ended_from_outside_takes_its_preview_with_it(reader: Reader, status: str) -> None:
    reader.take(preview("a", 2))
    frames = reader.catch_up(state(3, turn_state(status, 3)))
    assert told(frames) == ["preview_reset", "queue_update", "turn", "status"]
    assert reader.take(preview("b", 3)) == b""  # its worker does not know yet
    assert not reader.behind
    assert told(reader.take(commit(4, "status", attempt=2, commits=0))) == ["status"]
    assert told(reader.take(preview("c", 2, attempt=2))) == ["message_part:c"]


def test_what_a_turn_ended_from_outside_left_in_redis_is_not_replayed() -> None:
    late = Reader(CHAT)
    late.catch_up(state(3, turn_state("interrupted", 3)))
    assert late.replay([preview("a", 2)]) == b""


@pytest.mark.parametrize("status", ["running", "interrupting"])
def test_a_turn_that_still_speaks_keeps_its_preview(reader: Reader, status: str) -> None:
    reader.take(preview("a", 2))
    assert "preview_reset" not in told(reader.catch_up(state(3, turn_state(status, 3))))
    assert told(reader.take(preview("b", 3))) == ["message_part:b"]


def test_whoever_was_cut_off_in_a_first_snapshot_is_told_of_the_current_turn_only() -> None:
    back = Reader(CHAT)
    back.begin(Cursor.of(CHAT, 0, 8))
    old = turn_state("failed", 4, turn=OTHER, error={"kind": "auth"})
    frames = back.catch_up(state(5, old, turn_state("completed", 5)), repeat=True)
    assert told(frames) == ["queue_update", "turn", "status"]
    assert ids(frames)[-1] == "5-8-0-0"


def test_an_error_that_was_told_is_not_told_again() -> None:
    failed = turn_state("failed", 4, error={"kind": "auth"})
    back = Reader(CHAT)
    back.begin(Cursor.of(CHAT, 4, 8))
    assert "chat_error" not in told(back.catch_up(state(4, failed), repeat=True))
    back.begin(Cursor.of(CHAT, 3, 8))
    assert "chat_error" in told(back.catch_up(state(4, failed), repeat=True))


# --- one turn only


@pytest.fixture
def only() -> Reader:
    reader = Reader(CHAT, turn_id=OWN)
    reader.begin(Cursor.of(CHAT, 1, 10))
    return reader


def test_a_turns_own_stream_has_no_other_turns_events(only: Reader) -> None:
    assert only.take(commit(2, "status", turn=OTHER, commits=0)) == b""
    assert only.take(preview("x", 2, turn=OTHER)) == b""
    assert only.take(commit(3, "message", "status", turn=OTHER, first=3, ended=True)) == b""
    assert not only.finished
    assert told(only.take(commit(4, "status", commits=0))) == ["status"]
    assert told(only.take(preview("a", 2))) == ["message_part:a"]
    assert told(only.take(commit(5, "message", "status", first=3, ended=True)))[-1] == "status"
    assert only.finished


@pytest.mark.parametrize(("status", "finished"), [("completed", True), ("pending", False)])
def test_a_turns_own_stream_ends_when_the_rows_say_so(
    only: Reader, status: str, *, finished: bool
) -> None:
    rows = state(9, turn_state(status, 8), turn_state("running", 9, turn=OTHER))
    assert told(only.catch_up(rows)) == ["queue_update", "turn", "status"]
    assert only.finished is finished


def test_whoever_attaches_late_is_told_how_its_turn_ended() -> None:
    reader = Reader(CHAT, turn_id=OWN)
    rows = state(9, turn_state("failed", 3), turn_state("running", 9, turn=OTHER))
    frames = reader.catch_up(rows)
    assert told(frames) == ["queue_update", "turn", "status"]
    assert reader.finished
    assert ids(frames)[-1].startswith("9-")


@pytest.mark.parametrize("status", ["cancelled", "superseded"])
def test_a_queued_turns_own_stream_hears_of_its_end(only: Reader, status: str) -> None:
    waiting = turn_state("queued", 1, attempt=0)
    running = turn_state("running", 2, turn=OTHER)
    assert told(only.catch_up(state(2, running, waiting))) == ["queue_update"]
    rows = state(3, running)
    rows = replace(rows, own=turn_state(status, 3, attempt=0))  # it never was in history
    assert told(only.catch_up(rows)) == ["turn", "status"]
    assert only.finished


def test_a_turns_own_stream_says_nothing_of_how_much_history_there_is() -> None:
    reader = Reader(CHAT, turn_id=OWN)
    frames = reader.catch_up(state(9, turn_state("running", 9), messages=(7,)))
    assert b"has_more" not in frames
