"""What an administrator takes away is gone at once: sessions close, nobody is asked in vain."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID, uuid4

import pytest

from chatd.dev.valkey import Valkey
from chatd.store.db import Database
from tests.e2e.client import Client, Posted, call
from tests.e2e.fleet import Fleet, Process, registered
from tests.e2e.view import text_of
from tests.mcp.peer import OK, Peer, result, running
from tests.outbound.raw_server import Exchange
from tests.waiting import until

DISABLED = "An administrator has disabled this server."


@pytest.fixture
async def valkey_server(fleet: Fleet) -> AsyncGenerator[Valkey]:
    """The fleet's; it runs again afterwards."""
    server = fleet.stack.valkey
    assert server is not None
    yield server
    if not server.running:
        await server.restart()


async def _goodbye(exchange: Exchange, message: dict[str, Any]) -> None:
    await exchange.answer(status=200)


async def _parked(member: Client, posted: Posted) -> None:
    async def waits() -> bool:
        return (await member.turn(posted))["status"] == "requires_action"

    await until(waits)


@pytest.mark.parametrize("redis_is", ["there", "away"])
async def test_a_disabled_server_loses_its_sessions_and_the_approvals_for_its_calls(
    worker: Process,
    fleet: Fleet,
    valkey_server: Valkey,
    admin: Client,
    member: Client,
    redis_is: str,
) -> None:
    line = call("old__add")
    async with running(Peer(modern=False)) as peer:
        peer.says["DELETE"] = _goodbye
        async with registered(admin, "old", peer.url) as old:
            chosen = {"mcp_server_ids": [old["id"]]}
            await member.run(line, "/say done", **chosen)
            await admin.patch(f"/mcp/servers/{old['id']}", {"require_approval": "always"})
            await peer.until("DELETE")  # a configuration that has changed gets a new session
            posted = await member.create(line, "/echo", **chosen)
            await _parked(member, posted)
            if redis_is == "away":
                valkey_server.kill()
            await admin.patch(f"/mcp/servers/{old['id']}", {"enabled": False})
            assert (await member.ended(posted))["status"] == "completed"
            _, _, result, answer = await member.messages(posted)
    assert text_of(answer) == text_of(result) == DISABLED
    assert peer.count("tools/call") == 1


class Guest:
    """A user of whom two workers each have a turn in hand, in a call of a restricted server."""

    def __init__(self, admin: Client, db: Database) -> None:
        self._admin = admin
        self._db = db
        self.id = self.group_id = ""

    async def enter(self) -> None:
        name = f"guest-{uuid4().hex[:8]}"
        self.id = (await self._admin.post("/users", {"username": name}))["id"]
        self.group_id = (await self._admin.post("/groups", {"name": name}))["id"]
        await self._admin.http.put(f"/groups/{self.group_id}/members/{self.id}")

    async def call(self, url: str, *lines: str, **fields: Any) -> None:
        token = await self._admin.post(f"/users/{self.id}/tokens", {"name": "x"})
        async with Client(url, token["token"]) as client:
            for _ in range(2):
                await client.create(*lines, **fields)

    async def shut_out(self, how: str) -> None:
        if how == "removed":
            await self._admin.delete(f"/groups/{self.group_id}/members/{self.id}")
        else:
            await self._admin.patch(f"/users/{self.id}", {"suspended": True})

    async def statuses(self) -> list[str]:
        rows = await self._db.fetch("SELECT status FROM turns WHERE owner_id = $1", UUID(self.id))
        return [row["status"] for row in rows]


@pytest.mark.parametrize("redis_is", ["there", "away"])
@pytest.mark.parametrize(("how", "ends"), [("removed", "completed"), ("suspended", "interrupted")])
async def test_who_is_shut_out_loses_sessions_and_calls_on_every_worker(
    crew: Fleet,
    valkey_server: Valkey,
    admin: Client,
    db: Database,
    how: str,
    ends: str,
    redis_is: str,
) -> None:
    guest, go_on = Guest(admin, db), asyncio.Event()

    async def hold(exchange: Exchange, message: dict[str, Any]) -> None:
        await go_on.wait()
        await result(exchange, message, OK)

    await guest.enter()
    workers = [await crew.worker(capacity=1) for _ in range(2)]
    restricted = {"access": "groups", "group_ids": [guest.group_id], "forward_coder_headers": True}
    async with running(Peer(modern=False)) as peer:
        peer.says |= {"DELETE": _goodbye, "tools/call": hold}
        async with registered(admin, "old", peer.url, **restricted) as old:
            line = call("old__add")
            await guest.call(crew.apis[0].url, line, line, "/tools", mcp_server_ids=[old["id"]])
            await peer.until("tools/call", len(workers))  # each has room for one turn
            assert peer.count("initialize") >= len(workers)
            if redis_is == "away":
                valkey_server.kill()
            await guest.shut_out(how)
            go_on.set()

            async def ended() -> bool:
                # A turn that has not heard of it yet may connect once more, and calls nothing.
                closed = peer.count("DELETE") == peer.count("initialize")
                return closed and await guest.statuses() == [ends] * 2

            await until(ended, within_s=10)
    assert peer.count("tools/call") == len(workers)
