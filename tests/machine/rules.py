"""What must hold between any two actions, whatever they were. Each raises AssertionError."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from chatd.core.turns import ACTIVE, ENDED, MOVES, TurnStatus
from chatd.llm.prompt import chat_messages
from tests.machine.picture import Chat, Picture
from tests.strict import accepted

Order = Mapping[UUID, Sequence[UUID]]
"""The turns of each chat in the order in which they were submitted, but for promotions."""


def check(before: Picture, after: Picture, order: Order) -> None:
    for chat_id, chat in after.items():
        if chat_id in before:
            _versions(before[chat_id], chat)
            _moves(before[chat_id], chat)
            _history_only_grows(before[chat_id], chat)
        _one_active(chat)
        _order(chat, order[chat_id])
        _messages(chat)
        _ended_is_closed(chat)
        _waiting(chat)
        _answered(chat)
        _valid(chat)


def _versions(before: Chat, after: Chat) -> None:
    """What a client sees changes only with the version, and changed rows carry it."""
    assert after.version >= before.version
    if before.seen != after.seen:
        assert after.version == before.version + 1, (before.version, after.version)
    for turn_id, turn in after.turns.items():
        if _shown(before.turns.get(turn_id)) != _shown(turn):
            assert turn["version"] == after.version, turn
    old = {message["id"]: message for message in before.messages}
    for message in after.messages:
        if _shown(old.get(message["id"])) != _shown(message):
            assert message["version"] == after.version, message


def _shown(row: dict[str, Any] | None) -> object:
    return row and {k: v for k, v in row.items() if k not in ("version", "lease_id")}


def _moves(before: Chat, after: Chat) -> None:
    """Every turn is still there and has made at most one move of the table."""
    assert before.turns.keys() <= after.turns.keys(), "a turn is gone"
    for turn_id, turn in after.turns.items():
        now = TurnStatus(turn["status"])
        if turn_id not in before.turns:
            assert now in (TurnStatus.QUEUED, TurnStatus.PENDING), f"a turn began as {now}"
            continue
        was = TurnStatus(before.turns[turn_id]["status"])
        assert now == was or now in MOVES[was], f"{was} became {now}"


def _history_only_grows(before: Chat, after: Chat) -> None:
    """A message never changes, except that it is deleted; nothing is put before what was read."""
    now = {message["id"]: message for message in after.messages}
    for message in before.messages:
        kept = now.pop(message["id"], None)
        assert kept is not None, "a message is gone"
        assert kept["content"] == message["content"]
        assert kept["deleted"] or not message["deleted"]
    last = max((message["id"] for message in before.messages), default=0)
    assert all(message_id > last for message_id in now), "a message came out of order"


def _one_active(chat: Chat) -> None:
    active = chat.of(*ACTIVE)
    assert len(active) <= 1, active
    if chat.row["hidden"]:
        assert not chat.of("queued", *ACTIVE), "a deleted chat has work"


def _order(chat: Chat, order: Sequence[UUID]) -> None:
    """The queue, and the history, keep the order of submission."""
    assert set(order) == chat.turns.keys(), "a turn was lost or came from nowhere"
    queued = set(chat.of("queued"))
    by_position = sorted(queued, key=lambda turn_id: chat.turns[turn_id]["position"])
    assert by_position == [turn_id for turn_id in order if turn_id in queued]
    begun = [t for t in order if chat.turns[t]["user_message_id"] is not None]
    ids = [chat.turns[turn_id]["user_message_id"] for turn_id in begun]
    assert ids == sorted(ids), "turns became history in another order"


def _messages(chat: Chat) -> None:
    """What the user said is in the queue, in the history once, or was taken back: never lost."""
    for turn_id, turn in chat.turns.items():
        said = [m for m in chat.messages if m["turn_id"] == turn_id and m["step"] == 0]
        if turn["user_message_id"] is None:
            assert turn["status"] in ("queued", "cancelled"), turn
            assert not said, "a queued message is history"
        elif turn["kind"] == "message":
            assert [m["id"] for m in said] == [turn["user_message_id"]], turn
            assert said[0]["content"] == turn["content"]
    places = [(m["turn_id"], m["step"], m["position"]) for m in chat.messages]
    assert len(places) == len(set(places))


def _ended_is_closed(chat: Chat) -> None:
    open_calls = {
        call["turn_id"] for call in chat.journal if call["state"] in ("intended", "sent", "waiting")
    }
    waiting = {item["turn_id"] for item in chat.items if item["state"] == "open"}
    for turn_id, turn in chat.turns.items():
        leased = turn["status"] in ("running", "interrupting")
        assert (turn["lease_id"] is not None) == leased, turn
        assert turn["finished"] == (turn["status"] in ENDED), turn
        if turn["status"] in ENDED:
            assert turn_id not in open_calls, "the journal of an ended turn is open"
            assert turn_id not in waiting, "an ended turn waits for somebody"


def _waiting(chat: Chat) -> None:
    """A turn that requires action has something that can be answered."""
    waiting = {item["turn_id"] for item in chat.items if item["state"] == "open"}
    for turn_id in chat.of("requires_action"):
        assert turn_id in waiting, "nobody can answer what this turn waits for"
    for turn_id in chat.of("pending", "queued"):
        assert turn_id not in waiting


def _answered(chat: Chat) -> None:
    """Each call has one result before anything else is said; the last step may be under way."""
    open_calls: list[str] = []
    for message in chat.history:
        if message["role"] != "tool":
            assert not open_calls, f"{message['role']} speaks before {open_calls} are answered"
        for part in message["content"]:
            if part["type"] == "tool-call":
                open_calls.append(part["tool_call_id"])
            elif part["type"] == "tool-result":
                assert part["tool_call_id"] in open_calls, "a result of no open call"
                open_calls.remove(part["tool_call_id"])
    if open_calls:
        assert chat.of(*ACTIVE) or chat.row["hidden"], f"{open_calls} were never answered"


def _valid(chat: Chat) -> None:
    """The history is accepted as it stands by a model that is about to be asked."""
    asking = [chat.turns[turn_id]["kind"] for turn_id in chat.of("pending", "running")]
    if asking == ["message"]:
        accepted(chat_messages(["be kind"], [_as_read(message) for message in chat.history]))


def _as_read(message: dict[str, Any]) -> Any:
    return {"role": message["role"], "content": message["content"]}
