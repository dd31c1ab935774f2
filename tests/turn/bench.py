"""Running claimed turns, stopping them, and reading what they left."""

import asyncio
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

import orjson
from redis.asyncio import Redis

from chatd.core.work import Claim
from chatd.store.chats import get_turn, list_messages
from chatd.stream.entry import preview_key
from chatd.turn.deps import Control, StopReason, TurnDeps
from chatd.turn.run import run_turn
from tests.seed import Seed
from tests.store.working import journal, lose
from tests.waiting import until

OPEN = {"intended", "sent", "waiting"}


def call(name: str, **arguments: Any) -> str:
    """A line of the script: the model calls this tool."""
    return f"/call demo__{name} {orjson.dumps(arguments).decode()}"


def at_once(*calls: str) -> str:
    """The same for several tools in one step."""
    return "/call " + " & ".join(line.removeprefix("/call ") for line in calls)


@dataclass
class Running:
    """A turn's task as its worker holds it."""

    claim: Claim
    control: Control
    task: asyncio.Task[str]

    def stop(self, reason: StopReason) -> None:
        """As the runner does it."""
        self.control.stop = reason
        self.task.cancel()


class Bench:
    def __init__(self, seed: Seed, deps: TurnDeps, redis: Redis, server_id: UUID) -> None:
        self.seed = seed
        self.redis = redis
        self.deps = deps
        self.server_id = server_id

    async def claim(self, *script: str) -> Claim:
        """A new chat whose turn plays this script."""
        return await self.seed.claimed("\n".join(script))

    def start(self, claim: Claim) -> Running:
        control = Control()
        return Running(claim, control, asyncio.create_task(run_turn(self.deps, claim, control)))

    async def run(self, *script: str) -> Claim:
        """Plays the script to its end."""
        claim = await self.claim(*script)
        await run_turn(self.deps, claim, Control())
        return claim

    async def again(self, claim: Claim) -> Claim:
        """Another worker takes the turn from its lost one; runs it to its end."""
        await lose(self.seed, claim)
        again = await self.seed.claim()
        assert again.turn_id == claim.turn_id
        await run_turn(self.deps, again, Control())
        return again

    async def turn(self, claim: Claim) -> Any:
        return await get_turn(self.seed.db, self.seed.actor.user_id, claim.chat_id, claim.turn_id)

    async def messages(self, claim: Claim) -> list[Any]:
        """Oldest first."""
        found = await list_messages(self.seed.db, self.seed.actor.user_id, claim.chat_id, limit=100)
        return found["messages"][::-1]

    async def told(self, claim: Claim) -> list[str]:
        """What was said after the user's message: text, `name(args)` or `-> result`."""
        lines: list[str] = []
        for message in (await self.messages(claim))[1:]:
            for part in message["content"]:
                match part["type"]:
                    case "tool-call":
                        lines.append(f"{part['tool_name']}({part['args']})")
                    case "tool-result":
                        lines.append(f"-> {part['result']}")
                    case "file-reference":
                        lines.append(part["content"])
                    case _:
                        lines.append(part["text"])
        return lines

    async def preview(self, claim: Claim) -> bool:
        """Whether the model has begun to speak, for all to see."""
        return await cast(Any, self.redis).exists(preview_key(claim.chat_id)) > 0

    async def states(self, claim: Claim) -> list[str]:
        """The journal's, in call order."""
        return [state for _, state in await journal(self.seed, claim)]

    async def until_state(self, claim: Claim, *states: str) -> None:
        """Waits for the journal to say so."""

        async def check() -> bool:
            return await self.states(claim) == list(states)

        await until(check)

    async def complete(self, claim: Claim) -> None:
        """Whatever happened, a strict provider accepts the history and no call is open."""
        assert OPEN.isdisjoint(await self.states(claim))
        open_calls: list[str] = []
        for message in await self.messages(claim):
            if message["role"] == "tool":
                open_calls.remove(message["content"][0]["tool_call_id"])
                continue
            assert not open_calls, "a call was never answered"
            open_calls = [
                part["tool_call_id"] for part in message["content"] if part["type"] == "tool-call"
            ]
        assert not open_calls
