"""PostgreSQL dies and comes back: requests get a clear answer, and turns go on by themselves."""

import asyncio
from collections.abc import AsyncGenerator

import httpx2
import pytest

from chatd.dev.postgres import Postgres
from tests.e2e.client import Client, call, message, spoken
from tests.e2e.fleet import Fleet, Process
from tests.e2e.view import text_of
from tests.waiting import soon

MISSED = 4
"""Renewals in a row: more than a lease lasts."""


@pytest.fixture
async def database_server(fleet: Fleet) -> AsyncGenerator[Postgres]:
    """The fleet's; it runs again afterwards."""
    server = fleet.stack.postgres
    assert server is not None
    yield server
    if not server.running:
        await server.restart()


async def test_turns_survive_a_restart_of_the_database(
    worker: Process, database_server: Postgres, fleet: Fleet, member: Client
) -> None:
    streaming = await member.create("/long 150 20")
    calling = await member.create(
        " & ".join(
            [call("demo__slow", seconds=2), call("demo__add", a=2, b=3).removeprefix("/call ")]
        ),
        "/echo",
    )
    async with (
        member.watching(streaming.chat_id) as first,
        member.watching(calling.chat_id) as second,
    ):
        await first.until(lambda view: view.preview.startswith("word1 word2 "))
        await second.until(lambda view: view.results)
        database_server.kill()
        await _everything_is_refused(member, streaming.chat_id)
        await database_server.restart()
        for posted, watch in ((streaming, first), (calling, second)):
            assert await watch.over(posted.turn_id) == await member.screen(posted.chat_id)
            turn = await member.turn(posted)
            assert (turn["status"], turn["attempt"]) == ("completed", 1)
    assert text_of((await member.messages(streaming))[-1]) == spoken(150)
    results = (await member.messages(calling))[2:]
    assert [text_of(result) for result in results] == ["took 2 seconds", "5", "5"]
    _, messages = await member.run("/say as before")
    assert text_of(messages[-1]) == "as before"
    assert worker.child.running
    assert fleet.apis[0].child.running


async def test_a_long_outage_takes_no_turn_from_a_worker_that_lives(
    crew: Fleet, database_server: Postgres, member: Client
) -> None:
    """Leases run out meanwhile, for everybody: whoever comes back first must not take them."""
    workers = await asyncio.gather(crew.worker(), crew.worker())
    turns = [await member.create(call("demo__slow", seconds=15), "/echo") for _ in range(4)]
    for posted in turns:
        async with member.watching(posted.chat_id) as watch:
            await watch.until(lambda view: len(view.messages) == 2)
    database_server.kill()
    await soon(lambda: any(_missed_renewals(worker) == MISSED for worker in workers), 60)
    await database_server.restart()
    for posted in turns:
        turn = await member.ended(posted)
        assert (turn["status"], turn["attempt"]) == ("completed", 1)


def _missed_renewals(worker: Process) -> int:
    """One every three seconds, of a worker that has turns."""
    return len(worker.lines("leases could not be renewed"))


async def _everything_is_refused(member: Client, chat_id: str) -> None:
    for answer in (
        await member.http.post("/chats", json=message("/say hello")),
        await member.http.post(f"/chats/{chat_id}/messages", json=message("/say hello")),
        await member.http.get(f"/chats/{chat_id}"),
        await member.http.get(f"/chats/{chat_id}/stream"),
    ):
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["code"] == "unavailable"
    ready = await member.http.get(httpx2.URL(member.http.base_url).join("/readyz"))
    assert ready.status_code == 503
