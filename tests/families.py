"""Root chats whose scripts know beforehand which ids their sub-agents will have."""

from typing import Any
from uuid import UUID, uuid5

import orjson

from chatd.core.chats import NewChat, NewTurn
from chatd.core.work import Claim
from chatd.store.ids import new_id
from chatd.store.submitting import create_chat
from tests.seed import Seed, said
from tests.waiting import one


def tool(name: str, **arguments: Any) -> str:
    """A line of the script: the model calls this built-in tool."""
    return f"/call {name} {orjson.dumps(arguments).decode()}"


def spawn(prompt: str, kind: str = "general", **more: Any) -> str:
    return tool("spawn_agent", type=kind, prompt=prompt, **more)


def wait(chat_id: UUID, **more: Any) -> str:
    return tool("wait_agent", chat_id=str(chat_id), **more)


class Family:
    """One root chat and its first turn."""

    def __init__(self, seed: Seed) -> None:
        self.seed = seed
        self.chat_id = new_id()
        self.turn_id = new_id()

    def child(self, step: int = 1, position: int = 1) -> UUID:
        """The chat that the spawn_agent call at this place makes."""
        return uuid5(self.turn_id, f"{step}/{position}")

    async def submit(self, *script: str, **turn: Any) -> None:
        new = NewChat(NewTurn(said("\n".join(script)), **turn))
        actor = self.seed.actor
        await create_chat(
            self.seed.db, actor, new, None, chat_id=self.chat_id, turn_id=self.turn_id
        )

    async def begin(self, *script: str, **turn: Any) -> Claim:
        await self.submit(*script, **turn)
        return await self.seed.claim()

    async def claimed(self) -> Claim:
        """Its turn as a test addresses it when others run it."""
        row = await one(
            self.seed.db, "SELECT attempt, version FROM turns WHERE id = $1", self.turn_id
        )
        return Claim(
            turn_id=self.turn_id,
            chat_id=self.chat_id,
            owner_id=self.seed.actor.user_id,
            lease_id=new_id(),
            attempt=row["attempt"],
            commits=0,
            version=row["version"],
            waited_s=0.0,
        )

    async def status(self, chat_id: UUID | None = None) -> str:
        """Of the newest turn, as the rows have it; of the root unless told otherwise."""
        row = await one(
            self.seed.db,
            "SELECT status FROM turns WHERE chat_id = $1 ORDER BY position DESC LIMIT 1",
            chat_id or self.chat_id,
        )
        return row["status"]

    async def count(self) -> int:
        """How many sub-agents there are."""
        row = await one(
            self.seed.db, "SELECT count(*) FROM chats WHERE root_chat_id = $1", self.chat_id
        )
        return row[0]
