"""What an administrator takes away is gone at once: sessions close, nobody is asked in vain."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from chatd.dev.valkey import Valkey
from tests.e2e.client import Client, Posted, call
from tests.e2e.fleet import Fleet, Process, registered
from tests.e2e.view import text_of
from tests.mcp.peer import Peer, running
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
