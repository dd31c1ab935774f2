"""A whole installation on this machine: services, front doors and workers, each a real process."""

import base64
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx2
import orjson

from chatd.dev.children import Child, Spec, start_child, wait_until_ready
from chatd.dev.ports import on_free_port
from chatd.dev.served import Served
from chatd.dev.stack import Stack, start_stack
from chatd.store import migrations, tokens, users
from chatd.store.db import Database
from chatd.store.users import Role
from tests.e2e.client import Client
from tests.starting import RUN
from tests.waiting import until

ROOT = Path(__file__).parents[2]
CHATD = (sys.executable, "-c", RUN)
LOOPBACK = "127.0.0.0/8"


@dataclass
class Process:
    """One `chatd` process and its log."""

    child: Child
    log: Path
    url: str = ""

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What it has logged of this event so far."""
        whole = self.log.read_bytes().rpartition(b"\n")[0].splitlines()
        lines = [orjson.loads(line) for line in whole if line.startswith(b"{")]
        return [line for line in lines if line["event"] == event]

    async def says(self, event: str, **fields: str) -> dict[str, Any]:
        """The first such line, once it is there."""

        async def found() -> dict[str, Any] | None:
            lines = self.lines(event)
            return next((line for line in lines if fields.items() <= line.items()), None)

        line = await until(found)
        assert line is not None
        return line


@dataclass
class Fleet:
    """Starts processes; whatever still runs at `close` is stopped."""

    folder: Path
    stack: Stack
    apis: list[Process] = field(default_factory=list[Process])
    workers: list[Process] = field(default_factory=list[Process])
    tokens: dict[str, str] = field(default_factory=dict[str, str])
    encryption_key: str = field(default_factory=lambda: base64.b64encode(os.urandom(32)).decode())
    _started: int = 0

    @classmethod
    async def start(cls, folder: Path) -> Self:
        """Everything but workers, with an administrator, a member, a model and the demo tools."""
        stack = await start_stack(folder, model=True, demo_mcp=True, durable=False)
        fleet = cls(folder, stack)
        try:
            await fleet.settle()
        except BaseException:
            await fleet.close()
            raise
        return fleet

    async def settle(self) -> None:
        db = Database(self.stack.database_url, pool_size=1)
        try:
            await migrations.upgrade(db)
            await self.enter(db, "ada", "admin")
            await self.enter(db, "max", "member")
        finally:
            await db.close()
        await self.api()
        async with self.admin() as admin:
            await add_model(admin, self.model_url, is_default=True)
            demo = server("demo", self.demo_url, availability="default_on")
            await admin.post("/mcp/servers", demo)

    @property
    def model_url(self) -> str:
        assert self.stack.model is not None
        return self.stack.model.url

    @property
    def demo_url(self) -> str:
        assert self.stack.demo_mcp is not None
        return self.stack.demo_mcp.url

    def client(self, name: str, api: int = 0) -> Client:
        """A user at one of the front doors."""
        return Client(self.apis[api].url, self.tokens[name])

    def admin(self) -> Client:
        return self.client("ada")

    async def api(self, **settings: str) -> Process:
        """One more front door."""

        async def launch(port: int) -> Process:
            url = f"http://127.0.0.1:{port}"
            own = {"CHATD_ACCESS_URL": url} | settings
            process = self._launch("api", "--port", str(port), **own)
            process.url = url

            async def ready() -> None:
                async with httpx2.AsyncClient(trust_env=False, verify=False) as http:
                    answer = await http.get(f"{process.url}/readyz")
                    answer.raise_for_status()

            await wait_until_ready(process.child, ready, (httpx2.HTTPError,))
            return process

        process = await on_free_port(launch)
        self.apis.append(process)
        return process

    async def worker(self, capacity: int = 100, **settings: str) -> Process:
        """One more worker; returns when it claims turns."""
        process = self._launch("worker", "--capacity", str(capacity), **settings)
        self.workers.append(process)

        async def ready() -> None:
            if not process.lines("worker ready"):
                raise BlockingIOError

        await wait_until_ready(process.child, ready, (BlockingIOError,))
        return process

    async def dismiss(self) -> None:
        """Stop all workers."""
        while self.workers:
            await self.workers.pop().child.stop()

    async def close(self) -> None:
        await self.dismiss()
        for api in self.apis:
            await api.child.stop()
        await self.stack.close()

    def logs(self) -> Mapping[str, bytes]:
        """Everything any process has written, by file."""
        files = [*self.folder.glob("*.log"), *self.folder.glob("*/*.log")]
        return {file.name: file.read_bytes() for file in files}

    def _launch(self, kind: str, *arguments: str, **settings: str) -> Process:
        self._started += 1
        log = self.folder / f"{kind}-{self._started}.log"
        command = (*CHATD, kind, *arguments)
        env = self._settings() | settings
        return Process(start_child(Spec(command, log=log, cwd=ROOT, env=env, grace=30)), log)

    def _settings(self) -> dict[str, str]:
        return {
            "PATH": os.defpath,
            "CHATD_DATABASE_URL": self.stack.database_url,
            "CHATD_REDIS_URL": self.stack.redis_url,
            "CHATD_ENCRYPTION_KEYS": f"test:{self.encryption_key}",
            "CHATD_MODEL_ALLOWED_CIDRS": LOOPBACK,
            "CHATD_MCP_ALLOWED_CIDRS": LOOPBACK,
            "CHATD_DRAIN_DELAY_SECONDS": "0",
            # Tests count model calls; those about titles switch them on.
            "CHATD_AUTO_TITLES": "false",
            # A test that fails leaves turns behind that nobody waits for.
            "CHATD_DRAIN_GRACE_SECONDS": "1",
        }

    async def enter(self, db: Database, name: str, role: Role) -> None:
        """A user, whose token is then in `tokens`."""
        token = tokens.new_token()
        async with db.transaction() as session:
            user = await users.create_user(session, name, role=role)
            await tokens.create_token(session, user.id, token)
        self.tokens[name] = token


async def add_model(admin: Client, base_url: str, *, key: str = "", **config: Any) -> str:
    """A model with a provider of its own; answers the config's id."""
    provider = {
        "provider": "openai-compat",
        "display_name": str(uuid4()),
        "base_url": base_url,
        **({"api_key": key} if key else {}),
    }
    made = await admin.post("/chats/providers", provider)
    body = {"provider_id": made["id"], "model": "scripted-model", "context_limit": 128_000}
    return (await admin.post("/chats/model-configs", body | config))["id"]


@asynccontextmanager
async def scripted_model(folder: Path, *arguments: str, port: int = 0) -> AsyncGenerator[Served]:
    """One more model, for the block."""
    model = await Served.start("chatd.dev.scripted_model", *arguments, folder=folder, port=port)
    try:
        yield model
    finally:
        await model.stop()


@asynccontextmanager
async def registered(admin: Client, slug: str, url: str, **fields: Any) -> AsyncGenerator[Any]:
    """An MCP server config, for the block."""
    made = await admin.post("/mcp/servers", server(slug, url, **fields))
    try:
        yield made
    finally:
        await admin.delete(f"/mcp/servers/{made['id']}")


def server(slug: str, url: str, **fields: Any) -> dict[str, Any]:
    """The body of an MCP server config that is enabled, trusted and off unless chosen."""
    return {
        "display_name": slug,
        "slug": slug,
        "transport": "streamable_http",
        "url": url,
        "auth_type": "none",
        "availability": "default_off",
        "enabled": True,
        "trust_annotations": True,
        **fields,
    }
