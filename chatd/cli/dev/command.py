"""The `dev` command: what is started in which order, and stopped in the other."""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import httpx2
import typer

from chatd import logs
from chatd.cli.dev import rows
from chatd.cli.dev.home import Description, Home, occupy
from chatd.cli.dev.processes import Processes, say
from chatd.cli.dev.surroundings import OPENAI_URL, Surroundings
from chatd.core.errors import ChatdError
from chatd.dev.binaries import NoBinary
from chatd.dev.children import Child, ChildFailed, wait_until_ready
from chatd.dev.lock import InUse
from chatd.dev.ports import listen
from chatd.dev.stack import Stack, start_stack
from chatd.settings import parse_keys
from chatd.store import migrations
from chatd.store.db import Database
from chatd.store.secrets import KeyRing

Port = Annotated[int, typer.Option(min=0, max=65_535, help="Port of the API; 0: a free one.")]
DataDir = Annotated[Path, typer.Option(help="Where everything is kept between two starts.")]
Workers = Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")]


DEFAULT_DIR = Path(".chatd")


class CannotStart(ChatdError):
    """`chatd dev` cannot start; the message says why and what to do."""

    code = "cannot_start"


class NotReady(Exception):
    """The API answers, but not with 200 yet."""


def dev(port: Port = 8000, data_dir: DataDir = DEFAULT_DIR, workers: Workers = 1) -> None:
    """Run everything on this machine: services, a model, the API and workers, until Ctrl-C."""
    logs.configure("console", "warning")
    try:
        asyncio.run(_until_stopped(port, data_dir.absolute(), workers))
    except InUse:
        raise CannotStart(
            f"Another `chatd dev` runs on {data_dir}.", detail="Stop it, or use --data-dir."
        ) from None
    except (NoBinary, ChildFailed) as failure:
        raise CannotStart(str(failure)) from None


async def _until_stopped(port: int, data_dir: Path, workers: int) -> None:
    """The first signal stops everything in order, a second one without waiting for turns."""
    running = list[Processes]()
    work = asyncio.create_task(_work(port, data_dir, workers, running))
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if stopping:
            for processes in running:
                processes.kill()
            return
        stopping = True
        say("\nStopping … (again: at once)")
        work.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup asks us to survive the terminal.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, stop)
    try:
        await work
    except asyncio.CancelledError:
        if not stopping:
            raise


async def _work(port: int, data_dir: Path, workers: int, running: list[Processes]) -> None:
    async with occupy(data_dir) as home:
        # Listens from here on: else somebody takes the port before api is there.
        with _door(port) as door:
            await _serve(home, door, workers, running)


async def _serve(home: Home, door: socket.socket, workers: int, running: list[Processes]) -> None:
    given = Surroundings()
    say("Starting services …")
    async with _stack(home, given) as stack:
        description = await _prepare(home, given, stack, door.getsockname()[1])
        environment = given.environment(
            database_url=stack.database_url,
            redis_url=stack.redis_url,
            encryption_keys=given.chatd_encryption_keys or home.encryption_keys(),
            url=description.url,
        )
        processes = Processes(environment, home.logs, lock=home.lock)
        running.append(processes)
        try:
            listening = door.fileno()
            api = processes.start("api", "api", "--fd", str(listening), opened=(listening,))
            for number in range(1, workers + 1):
                processes.start(f"worker-{number}", "worker", "--metrics-port", "0")
            await _ready(api, description.url)
            processes.keep()
            home.describe(description)
            say(_welcome(description, home))
            await asyncio.Event().wait()
        finally:
            home.forget()
            await processes.stop()


def _door(port: int) -> socket.socket:
    try:
        return listen(port)
    except OSError as error:
        raise CannotStart(
            f"Port {port} cannot be used: {error.strerror}.",
            detail="Choose another one with --port; 0 picks a free one.",
        ) from None


@asynccontextmanager
async def _stack(home: Home, given: Surroundings) -> AsyncGenerator[Stack]:
    stack = await start_stack(
        home.folder,
        database_url=given.database_url,
        redis_url=given.redis_url,
        model=not given.real_model,
        demo_mcp=True,
    )
    try:
        yield stack
    finally:
        await stack.close()


async def _prepare(home: Home, given: Surroundings, stack: Stack, port: int) -> Description:
    """Bring the database up to date, and say where everything is."""
    assert stack.demo_mcp is not None
    if stack.model is not None:
        model, model_url = rows.scripted_model(stack.model.url), stack.model.url
    else:
        model = rows.real_model(given.openai_model, given.openai_base_url, given.openai_api_key)
        model_url = given.openai_base_url or OPENAI_URL
    keys = KeyRing(parse_keys(given.chatd_encryption_keys or home.encryption_keys()))
    db = Database(stack.database_url, pool_size=1, application="chatd dev")
    try:
        await migrations.upgrade(db)
        await rows.prepare(db, keys, model, stack.demo_mcp.url)
        tokens = await rows.working_tokens(db, home.read_tokens())
    finally:
        await db.close()
    home.write_tokens(tokens)
    return Description(
        url=f"http://127.0.0.1:{port}",
        admin_token=tokens["admin"],
        member_token=tokens["member"],
        database_url=stack.database_url,
        redis_url=stack.redis_url,
        model_url=model_url,
        demo_mcp_url=stack.demo_mcp.url,
    )


async def _ready(api: Child, url: str) -> None:
    # Plain HTTP on loopback: neither a proxy nor certificates have a say in it.
    async with httpx2.AsyncClient(base_url=url, trust_env=False, verify=False) as http:

        async def probe() -> None:
            if not (await http.get("/readyz")).is_success:
                raise NotReady

        await wait_until_ready(api, probe, (NotReady, httpx2.TransportError))


def _welcome(description: Description, home: Home) -> str:
    return f"""
chatd is at {description.url} (its API is explained at {description.url}/docs)

  admin's token    {description.admin_token}
  member's token   {description.member_token}
  model            {description.model_url}
  demo MCP server  {description.demo_mcp_url}
  logs             {home.logs}

Try it from another shell:

  {_command(home)} '/call demo__add {{"a":2,"b":3}}'

  curl -N {description.url}/api/experimental/chats \\
    -H 'Authorization: Bearer {description.member_token}' \\
    -H 'Content-Type: application/json' -H 'Accept: text/event-stream' \\
    -d '{{"content": [{{"type": "text", "text": "What time is it?"}}]}}'

Ctrl-C stops everything; the next start finds the data again.
"""


def _command(home: Home) -> str:
    """How to talk to this one, from the folder we were started in."""
    place = "" if home.folder == DEFAULT_DIR.absolute() else f" --data-dir {home.folder}"
    return f"{sys.argv[0]} chat{place}"
