"""What a follower reads: one snapshot, with the very values that live events carry."""

from dataclasses import replace
from uuid import UUID, uuid4

from chatd.core.messages import NO_USAGE
from chatd.store.chats import get_turn, list_messages
from chatd.store.editing import delete_chat
from chatd.store.following import (
    NEWEST,
    RECENT_TURNS,
    last_message,
    read_state,
    read_versions,
)
from tests.seed import Seed, answer
from tests.store.working import commit_calls, finish


async def test_a_chat_is_read_as_its_lists_show_it(seed: Seed) -> None:
    claim = await seed.claimed("first")
    await commit_calls(seed, claim)
    await seed.send(claim.chat_id, "second")
    await seed.send(claim.chat_id, "third")
    state = await read_state(seed.db, claim.chat_id, None)
    assert state is not None
    lists = await list_messages(seed.db, seed.actor.user_id, claim.chat_id)
    assert state.messages == lists["messages"][::-1]
    assert state.queue == lists["queued_messages"]
    assert (state.version, state.has_more, state.history_version) == (5, False, 0)
    (turn,) = state.turns
    view = await get_turn(seed.db, seed.actor.user_id, claim.chat_id, claim.turn_id)
    assert {**turn.view, "usage": None} == {**view, "usage": None}
    assert (turn.version, turn.commits) == (3, 1)


async def test_only_what_came_after_a_message_is_read(seed: Seed) -> None:
    claim = await seed.claimed()
    step = await commit_calls(seed, claim)
    await finish(seed, claim, answer("done", 2))
    state = await read_state(seed.db, claim.chat_id, step.messages[0][0])
    assert state is not None
    assert [message["content"][0]["text"] for message in state.messages] == ["done"]
    assert state.has_more is False


async def test_without_a_message_the_newest_are_read(seed: Seed) -> None:
    claim = await seed.claimed("oldest")
    answers = [answer(f"{step}", step) for step in range(1, NEWEST + 1)]
    await finish(seed, claim, *answers)
    state = await read_state(seed.db, claim.chat_id, None)
    assert state is not None
    texts = [message["content"][0]["text"] for message in state.messages]
    assert texts == [f"{step}" for step in range(1, NEWEST + 1)]
    assert state.has_more is True
    from_the_start = await read_state(seed.db, claim.chat_id, 0)
    assert from_the_start is not None
    assert len(from_the_start.messages) == NEWEST + 1
    assert from_the_start.has_more is False


async def test_only_the_latest_turns_are_looked_at(seed: Seed) -> None:
    chat_id = await seed.chat_id()
    for _ in range(RECENT_TURNS + 5):
        await finish(seed, await seed.claim())
        await seed.send(chat_id)
    last = await seed.claim()
    state = await read_state(seed.db, chat_id, None)
    assert state is not None
    assert len(state.turns) == RECENT_TURNS
    assert state.turns[-1].view["id"] == str(last.turn_id)
    assert [turn.version for turn in state.turns] == sorted(turn.version for turn in state.turns)


async def test_messages_kept_from_the_user_are_not_read(seed: Seed) -> None:
    claim = await seed.claimed()
    await finish(seed, claim, answer("a"), answer("b", 2), answer("c", 3))
    await seed.db.fetch("UPDATE chat_messages SET deleted = true WHERE step = 1")
    await seed.db.fetch("UPDATE chat_messages SET visibility = 'model' WHERE step = 2")
    state = await read_state(seed.db, claim.chat_id, None)
    assert state is not None
    texts = [message["content"][0]["text"] for message in state.messages]
    assert texts == ["hello", "c"]


async def test_a_chat_that_is_gone_has_no_state_and_no_version(seed: Seed) -> None:
    here, gone = await seed.chat_id(), await seed.chat_id()
    await delete_chat(seed.db, seed.actor, gone)
    assert await read_state(seed.db, gone, None) is None
    assert await read_versions(seed.db, [here, gone, uuid4()]) == {here: 1}


async def test_one_turn_is_found_however_old_it_is(seed: Seed) -> None:
    first = await seed.claimed("first")
    await finish(seed, first, *(answer(f"{step}", step) for step in range(1, 4)))
    for _ in range(RECENT_TURNS + 1):
        await seed.send(first.chat_id)
        later = await seed.claim()
        await finish(seed, later, answer("a"), answer("b", 2))
    state = await read_state(seed.db, first.chat_id, None, first.turn_id)
    assert state is not None
    assert state.own is not None
    assert (state.own.view["id"], state.own.view["status"]) == (str(first.turn_id), "completed")
    assert state.own not in state.turns
    texts = [message["content"][0]["text"] for message in state.messages]
    assert texts == ["first", "1", "2", "3"]
    assert state.has_more is False
    rest = await read_state(seed.db, first.chat_id, state.messages[1]["id"], first.turn_id)
    assert rest is not None
    assert rest.messages == state.messages[2:]


async def test_a_queued_turn_is_found_and_begins_after_what_is_there(seed: Seed) -> None:
    claim = await seed.claimed("first")
    queued = await seed.send(claim.chat_id, "second")
    own = UUID(queued.turn["id"])
    state = await read_state(seed.db, claim.chat_id, None, own)
    assert state is not None
    assert state.own is not None
    assert (state.own.view["status"], state.messages) == ("queued", [])
    everything = await read_state(seed.db, claim.chat_id, None)
    assert everything is not None
    assert everything.own is None
    last = everything.messages[-1]["id"]
    assert await last_message(seed.db, claim.chat_id, queued.version) == last
    ended = await finish(seed, claim, answer("later"))
    assert await last_message(seed.db, claim.chat_id, queued.version) == last
    assert await last_message(seed.db, claim.chat_id, ended.version) > last
    assert await last_message(seed.db, uuid4(), ended.version) == 0


async def test_a_turn_of_another_chat_is_not_found(seed: Seed) -> None:
    mine, other = await seed.claimed(), await seed.claimed()
    state = await read_state(seed.db, mine.chat_id, None, other.turn_id)
    assert state is not None
    assert (state.own, state.messages) == (None, [])


async def test_a_turn_is_told_with_what_it_used(seed: Seed) -> None:
    claim = await seed.claimed()
    used = NO_USAGE.copy()
    used["input_tokens"], used["output_tokens"], used["total_tokens"] = 36, 50, 86
    await finish(seed, claim, replace(answer("hi"), usage=used, cost_micros=7))
    state = await read_state(seed.db, claim.chat_id, None)
    assert state is not None
    assert state.turns[-1].view["usage"] == {**used, "total_cost_micros": 7}
