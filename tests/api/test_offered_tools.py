"""What `GET /chats/{chat}/tools` says is what the model is offered: turns really run."""

from collections.abc import AsyncGenerator
from itertools import product
from typing import Any
from uuid import UUID

import orjson
import pytest
from redis.asyncio import Redis

from chatd.core.work import Claim
from chatd.dev.served import Served
from chatd.store.db import Database
from chatd.store.work import claim_turns
from chatd.turn.deps import Control, TurnDeps
from chatd.turn.run import run_turn
from tests.api.conftest import Person, text
from tests.api.test_explain import JOIN, Group
from tests.api.test_tools import add
from tests.families import spawn
from tests.turning import turn_deps

OPEN: dict[str, Any] = {
    "enabled": True,
    "availability": "default_off",
    "allow_in_plan_mode": False,
    "tool_allow_list": [],
    "tool_deny_list": [],
    "tool_settings": {},
    "model_intent": False,
}

RULES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "disabled": {"enabled": False},
    "denied": {"tool_deny_list": ["echo", "slow"]},
    "allowed": {"tool_allow_list": ["add", "echo"]},
    "planning": {"allow_in_plan_mode": True, "tool_settings": {"slow": {"plan_mode": "deny"}}},
    "one tool plans": {"tool_settings": {"add": {"plan_mode": "allow"}}, "model_intent": True},
    "for members": {},
    "for others": {},
}

SITUATIONS = list(product(("force_on", "default_on", "default_off"), (True, False), ("", "plan")))
"""Availability, whether the chat has selected the server, its plan mode."""


@pytest.fixture
async def deps(db: Database, redis: Redis) -> AsyncGenerator[TurnDeps]:
    async with turn_deps(db, redis) as deps:
        yield deps


@pytest.fixture
async def server(admin: Person, scripted_model: Served, demo_server: Served) -> str:
    provider = {"provider": "openai-compat", "display_name": "x", "base_url": scripted_model.url}
    made = (await admin.post("/chats/providers", provider)).json()
    config = {"provider_id": made["id"], "model": "scripted-model", "context_limit": 100_000}
    answer = await admin.post("/chats/model-configs", config)
    assert answer.status_code == 201, answer.text
    return await add(admin, "demo", demo_server.url)


class Comparing:
    """A member's chats, each with a turn in which the model tells what it is offered."""

    def __init__(self, member: Person, deps: TurnDeps) -> None:
        self._member = member
        self._deps = deps

    async def begin(self, *script: str, **fields: Any) -> str:
        body = {"content": text("\n".join(script)), "unsafe_dynamic_tools": [PICK]} | fields
        answer = await self._member.post("/chats", body)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    async def run(self) -> Claim:
        (claim,) = await claim_turns(self._deps.db, "test-worker", 1)
        ended = await run_turn(self._deps, claim, Control())
        assert ended != "failed", str((await self._turn(claim))["error"])
        return claim

    async def _turn(self, claim: Claim) -> Any:
        return (await self._member.get(f"/chats/{claim.chat_id}/turns/{claim.turn_id}")).json()

    async def offered(self, chat: str | UUID) -> list[str]:
        """As the model told."""
        messages = (await self._member.get(f"/chats/{chat}/messages")).json()["messages"]
        last = max(messages, key=lambda message: message["id"])
        return orjson.loads(last["content"][-1]["text"])

    async def explained(self, chat: str | UUID) -> list[str]:
        answer = await self._member.get(f"/chats/{chat}/tools")
        assert answer.status_code == 200, answer.text
        return [tool["name"] for tool in answer.json()["tools"]]


PICK = {"name": "pick", "description": "", "input_schema": {"type": "object"}}


@pytest.mark.parametrize("rule", RULES)
async def test_what_is_explained_is_what_the_model_is_offered(
    admin: Person, member: Person, server: str, deps: TurnDeps, rule: str
) -> None:
    comparing = Comparing(member, deps)
    group = Group(deps.db)
    seen: set[tuple[str, ...]] = set()
    for availability, selected, plan_mode in SITUATIONS:
        await change(admin, server, availability=availability)
        ids = [server] if selected else []
        chat = await comparing.begin("/tools", mcp_server_ids=ids, plan_mode=plan_mode)
        await change(admin, server, availability=availability, **RULES[rule])
        if rule.startswith("for"):
            await group.restrict(server)
        if rule == "for members":
            await deps.db.fetch(JOIN, group.id, member.user.id)
        await comparing.run()
        offered = await comparing.offered(chat)
        assert offered == await comparing.explained(chat), (availability, selected, plan_mode)
        seen.add(tuple(name for name in offered if name.startswith("demo__")))
        await deps.db.fetch(REOPEN, server)
    assert len(seen) == DIFFERENT[rule]


async def change(admin: Person, server: str, **fields: Any) -> None:
    answer = await admin.patch(f"/mcp/servers/{server}", OPEN | fields)
    assert answer.status_code == 200, answer.text


REOPEN = """
WITH opened AS (UPDATE mcp_server_configs SET access = 'everyone', version = version + 1
    WHERE id = $1), left_alone AS (DELETE FROM mcp_server_groups WHERE server_id = $1)
DELETE FROM groups
"""

DIFFERENT = {
    "as it is": 2,
    "disabled": 1,
    "denied": 2,
    "allowed": 2,
    "planning": 3,
    "one tool plans": 3,
    "for members": 2,
    "for others": 1,
}
"""How many different offers of the server's tools each rule makes: the comparison is no empty one.
None, all, and what is left of them while planning."""


@pytest.mark.parametrize("plan_mode", ["", "plan"])
async def test_the_same_goes_for_sub_agents(
    admin: Person, member: Person, server: str, deps: TurnDeps, plan_mode: str
) -> None:
    await change(admin, server, availability="force_on", allow_in_plan_mode=True)
    comparing = Comparing(member, deps)
    root = await comparing.begin(spawn("/tools"), plan_mode=plan_mode)
    assert str((await comparing.run()).chat_id) == root
    child = (await comparing.run()).chat_id
    assert str(child) != root
    offered = await comparing.offered(child)
    assert offered == await comparing.explained(child)
    assert "spawn_agent" not in offered
    assert any(name.startswith("demo__") for name in offered) is (plan_mode == "")
