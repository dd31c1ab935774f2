"""The installation that the weather comes over: processes, a held tool server, held chats."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import asyncpg

from chatd.dev.postgres import Postgres
from chatd.dev.valkey import Valkey
from chatd.store.db import Database
from tests.e2e.client import Client, Posted, call
from tests.e2e.fleet import Fleet, Process, add_model, registered
from tests.e2e.gate import Gate, gate_to
from tests.waiting import until
from tests.weather.reader import Reader


class Hold:
    """A chat's lock, held by a connection of our own until `release`."""

    def __init__(self, connection: "asyncpg.Connection[Any]") -> None:
        self._connection = connection

    @classmethod
    async def on(cls, url: str, chat_id: str) -> "Hold":
        hold = cls(await asyncpg.connect(url, ssl=False))
        await hold.take(chat_id)
        return hold

    async def take(self, chat_id: str) -> None:
        await self._connection.execute("BEGIN")
        lock = "SELECT 1 FROM chats WHERE id = $1 FOR NO KEY UPDATE"
        await self._connection.execute(lock, chat_id)

    async def waited_for(self) -> None:
        """Returns when a turn's worker wants to commit to the chat, maybe behind its title."""
        blocked = """SELECT 1 FROM pg_stat_activity, unnest(pg_blocking_pids(pid)) AS before
            WHERE query LIKE '%fence AS%' AND (before = pg_backend_pid()
                OR pg_backend_pid() = ANY (pg_blocking_pids(before))) LIMIT 1"""

        async def found() -> bool:
            # We are in a transaction, which would see the same activity for ever.
            await self._connection.execute("SELECT pg_stat_clear_snapshot()")
            return await self._connection.fetchval(blocked) is not None

        await until(found)

    async def release(self) -> None:
        """Also when the server has been killed meanwhile."""
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await self._connection.execute("COMMIT")
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await self._connection.close(timeout=5)


@dataclass
class Scene:
    """One chat that is to be somewhere when the weather comes."""

    token: str
    posted: list[Posted]
    reader: Reader
    hold: Hold | None = None
    gate: Gate | None = None
    """Before its model, which is called `model`."""
    model: str = ""
    calls: int = 0
    """How often that model will have been asked when the scene is there."""

    @property
    def chat_id(self) -> str:
        return self.posted[0].chat_id


@dataclass
class Ground:
    """`worker` has every turn in hand when the weather comes, `spare` goes on with them; `victim`
    is a door that may go."""

    fleet: Fleet
    db: Database
    member: Client
    admin: Client
    gates: list[Gate]
    """The first one is before the tools of `ledger`."""
    only: dict[str, Any]
    """What makes a message use the demo tools, and those behind the gate."""
    careful: str
    """The demo tools again, each call of which has to be approved."""
    worker: Process
    spare: Process | None = None
    victim: Client | None = None
    whole_at: float = 0.0
    """When the fault came, or when what it took was there again."""
    scenes: list[Scene] = field(default_factory=list[Scene])
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def postgres(self) -> Postgres:
        assert self.fleet.stack.postgres is not None
        return self.fleet.stack.postgres

    @property
    def valkey(self) -> Valkey:
        assert self.fleet.stack.valkey is not None
        return self.fleet.stack.valkey

    def door(self) -> Client:
        """Where readers go: to the one that may be lost, as long as it is there."""
        return self.victim or self.member

    async def scene(self, *scripts: tuple[str, ...], **fields: Any) -> Scene:
        """A new chat with these turns, and somebody who watches it."""
        token = uuid4().hex
        posted: list[Posted] = []
        for lines in scripts:
            said = [f"token {token}", *(line.replace("TOKEN", token) for line in lines)]
            if posted:
                posted.append(await self.member.say(posted[0].chat_id, *said))
            else:
                posted.append(await self.member.create(*said, **{**self.only, **fields}))
        scene = Scene(token, posted, Reader(self.door, posted[0].chat_id))
        self.scenes.append(scene)
        return scene

    async def held_model(self, name: str) -> tuple[Gate, str]:
        """A model behind a gate of its own; answers the config's id too."""
        gate = await self.stack.enter_async_context(gate_to(self.fleet.model_url))
        self.gates.append(gate)
        return gate, await add_model(self.admin, gate.url, model=name)

    async def asked(self, model: str) -> int:
        """How often a model of this name was asked."""
        url = self.fleet.model_url.removesuffix("/v1") + "/requests"
        requests: list[Any] = (await self.member.http.get(url)).json()
        return sum(request["model"] == model for request in requests)

    async def heard(self, model: str, calls: int) -> bool:
        await asyncio.sleep(0.05)
        return await self.asked(model) >= calls

    async def open_item(self, scene: Scene, kind: str) -> Any:
        """What the chat's last turn waits for, as soon as it does."""
        path = f"/chats/{scene.chat_id}/turns/{scene.posted[-1].turn_id}"

        async def found() -> Any:
            answer = await self.member.http.get(path)
            items: list[Any] = answer.json()["open_items"] if answer.status_code == 200 else []
            return next((item for item in items if item["kind"] == kind), None)

        return await until(found)

    async def answer(self, scene: Scene, kind: str, path: str, body: Any) -> None:
        item = await self.open_item(scene, kind)
        await self.insist(f"/chats/{scene.chat_id}/{path}/{item['id']}", body)

    async def insist(self, path: str, body: Any) -> None:
        """Post until the front door has its database again."""

        async def done() -> bool:
            answer = await self.member.http.post(path, json=body)
            assert answer.status_code in (200, 204, 503), answer.text
            return answer.status_code != 503

        await until(done)

    async def release(self) -> None:
        """Nothing is held back any more."""
        for gate in self.gates:
            gate.open()
        await asyncio.gather(*(scene.hold.release() for scene in self.scenes if scene.hold))
        for scene in self.scenes:
            scene.hold = None

    async def close(self) -> None:
        await self.release()
        await asyncio.gather(*(scene.reader.close() for scene in self.scenes))
        await self.stack.aclose()


async def new_worker(fleet: Fleet) -> Process:
    """One that gives new chats their titles."""
    return await fleet.worker(CHATD_AUTO_TITLES="true")


@asynccontextmanager
async def ground_of(fleet: Fleet) -> AsyncGenerator[Ground]:
    """A fresh worker that has met every tool server; all that is left is cleared afterwards."""
    await fleet.dismiss()
    async with (
        gate_to(fleet.demo_url) as gate,
        fleet.admin() as admin,
        fleet.client("max") as member,
        registered(admin, "ledger", gate.url) as ledger,
        registered(admin, "careful", fleet.demo_url, require_approval="always") as careful,
    ):
        listed = await admin.get("/mcp/servers")
        demo = next(server["id"] for server in listed if server["slug"] == "demo")
        db = Database(fleet.stack.database_url, pool_size=2)
        only = {"mcp_server_ids": [demo, ledger["id"]]}
        worker = await new_worker(fleet)
        ground = Ground(fleet, db, member, admin, [gate], only, careful["id"], worker)
        try:
            _, warmed = await member.run(call("ledger__append", text="before"), **only)
            assert not warmed[2]["content"][0]["is_error"]
            yield ground
        finally:
            await ground.close()
            await fleet.dismiss()
            await db.close()
