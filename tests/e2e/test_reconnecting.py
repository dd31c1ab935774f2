"""Readers hang up anywhere and come back, here or elsewhere: all see the same in the end."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from itertools import cycle

import pytest

from tests.e2e.client import Client, Posted, at_once, call, message, spoken
from tests.e2e.fleet import Fleet, Process
from tests.e2e.view import Event, View, text_of

SCRIPT = (
    at_once(call("demo__slow", seconds=0.3), call("demo__echo", text="first")),
    call("demo__add", a=2, b=3),
    "/long 40 20",
)


@pytest.fixture
async def elsewhere(fleet: Fleet) -> AsyncGenerator[Client]:
    """The same user at a second front door."""
    if len(fleet.apis) < 2:
        await fleet.api()
    async with fleet.client("max", api=1) as client:
        yield client


async def test_a_reader_may_come_back_at_every_event(
    worker: Process, member: Client, elsewhere: Client
) -> None:
    """Tools, a queue, a failure that keeps what is queued; every id is a place to go on from."""
    first = await member.create(*SCRIPT)
    second = await member.say(first.chat_id, "/fail 401")
    await member.say(first.chat_id, "/say nobody lets me run")
    async with member.watching(first.chat_id) as watch:
        screen = await watch.over(second.turn_id)
        events = list(watch.events)
    assert watch.view.longest.startswith("word1 ")
    assert (watch.view.status, len(watch.view.queue)) == ("error", 1)
    assert {event.name for event in events} >= {"message", "message_part", "queue_update", "status"}

    async def from_event(index: int, client: Client) -> bytes:
        view = View()
        for event in events[: index + 1]:
            view.take(event)
        return await _come_back(client, second, view)

    for index in range(len(events)):
        here, there = await asyncio.gather(from_event(index, member), from_event(index, elsewhere))
        assert here == there == screen, f"after event {index}: {events[index]}"


async def test_a_reader_that_hangs_up_all_the_time_misses_nothing(
    worker: Process, member: Client, elsewhere: Client
) -> None:
    """It stays for one to seven events, and each time it comes back to the other process."""
    first = await member.create(*SCRIPT)
    second = await member.say(first.chat_id, "/long 30 20")
    view = View()
    async with member.watching(first.chat_id) as watch:
        for visit, client in enumerate(cycle((elsewhere, member))):
            await _stay(client, second, view, events=visit % 7 + 1)
            if _is_over(view, second):
                break
        assert await watch.over(second.turn_id) == view.snapshot()
    assert view.longest.startswith("word1 ")
    assert text_of((await member.messages(first))[-1]) == spoken(40)


async def test_readers_of_a_front_door_that_leaves_go_on_at_another(
    worker: Process, fleet: Fleet, member: Client
) -> None:
    leaving = await fleet.api()
    fleet.apis.remove(leaving)
    posted = await member.create(*SCRIPT)
    view = View()
    async with (
        Client(leaving.url, fleet.tokens["max"]) as there,
        there.stream(posted.chat_id) as events,
    ):
        async for event in events:
            view.take(event)
            if view.preview:
                break
        leaving.child.send_signal(signal.SIGTERM)
        async for event in events:
            view.take(event)
    assert await leaving.child.wait() == 0
    assert await _come_back(member, posted, view) == await member.screen(posted.chat_id)


@pytest.mark.parametrize("cursor", ["nonsense", "0", "999999-1-1-1", "-1-0-0-0", "1-2-3"])
async def test_an_unknown_cursor_starts_anew(worker: Process, member: Client, cursor: str) -> None:
    posted = await member.create(call("demo__add", a=2, b=3), "/say five")
    await member.ended(posted)
    view = View()
    screen = await member.screen(posted.chat_id)
    async with member.stream(posted.chat_id, cursor) as events:
        async for event in events:
            view.take(event)
            if event.name == "status":
                break
    assert view.restarts == 1
    assert view.snapshot() == screen


async def test_a_reader_without_a_cursor_gets_what_follows_its_last_message(
    worker: Process, member: Client
) -> None:
    posted = await member.create(call("demo__add", a=2, b=3), "/say five")
    await member.ended(posted)
    messages = await member.messages(posted)
    path = f"/chats/{posted.chat_id}/stream?after_id={messages[1]['id']}"
    view = View()
    async with member.stream_at(path) as events:
        async for event in events:
            view.take(event)
            if event.name == "status":
                break
    assert list(view.messages.values()) == messages[2:]


async def test_the_same_key_attaches_to_the_same_turn_again(
    worker: Process, member: Client, elsewhere: Client
) -> None:
    chat = await member.create("/say hello")
    await member.ended(chat)
    path = f"/chats/{chat.chat_id}/messages"
    body = message("/long 60 20")
    key = {"Idempotency-Key": "once"}
    async with member.streamed(path, body, **key) as events:
        answer = (await anext(events)).data
        async for event in events:
            if event.name == "message_part":
                break
    posted = Posted(chat.chat_id, answer["turn"]["id"], answer)
    for client in (elsewhere, member):
        async with client.streamed(path, body, **key) as events:
            seen = [event async for event in events]
        assert seen[0].data["turn"]["id"] == posted.turn_id
        assert (seen[-1].name, seen[-1].data["status"]) == ("status", "completed")
        _check_only_this_turn(seen, posted)
    refused = await member.http.post(path, json=message("/say else"), headers=key)
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    _, kept = await member.messages(posted)
    assert text_of(kept) == spoken(60)
    assert len((await member.get(f"/chats/{chat.chat_id}/turns"))["turns"]) == 2


async def test_a_turn_can_be_followed_while_it_waits_in_the_queue(
    worker: Process, member: Client
) -> None:
    chat = await member.create(call("demo__slow", seconds=0.5), "/long 10 20")
    path = f"/chats/{chat.chat_id}/messages"
    async with member.streamed(path, message("/long 20 20")) as events:
        seen = [event async for event in events]
    assert seen[0].data["queued"]
    posted = Posted(chat.chat_id, seen[0].data["turn"]["id"], seen[0].data)
    _check_only_this_turn(seen, posted)
    view = View()
    for event in seen[1:]:
        view.take(event)
    assert view.turns[posted.turn_id] == "completed"
    assert [text_of(kept) for kept in view.messages.values()] == ["/long 20 20", spoken(20)]
    assert view.longest


async def _come_back(client: Client, last: Posted, view: View) -> bytes:
    """What is on the screen once the stream has brought the reader up to date."""
    async with client.stream(last.chat_id, view.cursor) as events:
        async for event in events:
            view.take(event)
            if event.name == "status" and view.ended(last.turn_id):
                return view.snapshot()
    raise AssertionError("the stream ended")


async def _stay(client: Client, last: Posted, view: View, *, events: int) -> None:
    """For so many events, or until there will be no more."""
    async with client.stream(last.chat_id, view.cursor) as found:
        async for event in found:
            view.take(event)
            events -= 1
            if not events or _is_over(view, last):
                return


def _is_over(view: View, last: Posted) -> bool:
    """`turn` may say so first; only `status` says it of the chat."""
    return view.ended(last.turn_id) and view.status == "waiting"


def _check_only_this_turn(seen: list[Event], posted: Posted) -> None:
    assert seen[0].name == "turn"
    for event in seen[1:]:
        assert event.data["turn_id"] in (posted.turn_id, None), event
