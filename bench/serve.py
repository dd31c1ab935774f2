"""The whole system in one process tree, as the benchmark drives it.

Embedded PostgreSQL (durable) and Valkey, migrations, an administrator, `chatd api` and
`chatd worker`: nothing else runs, so the CPU of this tree is what a turn costs.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import asyncpg

from chatd.dev.children import Child, Spec, start_child
from chatd.dev.secret_file import write_secret
from chatd.dev.stack import Stack, start_stack

ROOT = Path(__file__).resolve().parents[1]
LOOPBACK = "127.0.0.0/8"
_TURNS = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'turns'"
GRACE_S = 4.0
"""The harness ends everything at once, PostgreSQL too: there is nothing to wait for."""


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="of the first api process")
    parser.add_argument("--data", type=Path, required=True, help="emptied first")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--apis", type=int, default=1, help="on ports that follow each other")
    parser.add_argument("--capacity", type=int, default=256, help="turns at once, a worker")
    asyncio.run(_serve(parser.parse_args()))


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    data: Path = options.data
    shutil.rmtree(data, ignore_errors=True)
    stack = await start_stack(data)
    children: list[Child] = []
    settling = asyncio.create_task(_settle(stack.database_url))
    try:
        env = environment(stack)
        _chatd(env, "migrate")
        token = _chatd(env, "admin", "create-user", "bench", "--role", "admin", "--token")
        for place in range(options.workers):
            arguments = ("worker", "--capacity", str(options.capacity))
            children.append(_start(env, data / f"worker-{place}.log", *arguments))
        for place in range(options.apis):
            port = str(options.port + place)
            children.append(_start(env, data / f"api-{place}.log", "api", "--port", port))
        _tell(data, stack, token, children)
        await stop.wait()
    finally:
        settling.cancel()
        await asyncio.gather(*(child.stop() for child in children))
        with contextlib.suppress(Exception):
            await stack.close()


async def _settle(database_url: str) -> None:
    """Statistics as a database has them that has grown for days: plans made for tables that were
    empty or small a second ago, and kept by prepared statements, are no system's speed."""
    connection = await asyncpg.connect(database_url)
    seen = 30
    try:
        while True:
            await asyncio.sleep(0.2)
            turns = await connection.fetchval(_TURNS) or 0
            if turns >= 3 * seen:
                seen = turns
                await connection.execute("ANALYZE")
    finally:
        await connection.close()


def environment(stack: Stack) -> dict[str, str]:
    """What the processes are started with: only what they need of ours."""
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    return {
        "PATH": os.defpath,
        "CHATD_DATABASE_URL": stack.database_url,
        "CHATD_REDIS_URL": stack.redis_url,
        "CHATD_ENCRYPTION_KEYS": f"bench:{key}",
        "CHATD_MODEL_ALLOWED_CIDRS": LOOPBACK,
        "CHATD_MCP_ALLOWED_CIDRS": LOOPBACK,
        # A model call that the other systems do not make.
        "CHATD_AUTO_TITLES": "false",
    }


def _command(*arguments: str) -> list[str]:
    # Not the console script: it is there only once the package itself is installed.
    return [sys.executable, "-c", "from chatd.cli.main import app; app()", *arguments]


def _chatd(env: Mapping[str, str], *arguments: str) -> str:
    done = subprocess.run(
        _command(*arguments), env=env, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.strip()


def _start(env: Mapping[str, str], log: Path, *arguments: str) -> Child:
    return start_child(Spec(_command(*arguments), log=log, cwd=ROOT, env=env, grace=GRACE_S))


def _tell(data: Path, stack: Stack, token: str, children: list[Child]) -> None:
    """Where everything is, for the adapter and our own cells."""
    told = {
        "token": token,
        "database_url": stack.database_url,
        "redis_url": stack.redis_url,
        "pids": {
            "postgres": stack.postgres.pid if stack.postgres else 0,
            "valkey": stack.valkey.pid if stack.valkey else 0,
            **{child.spec.log.stem: child.pid for child in children},
        },
    }
    write_secret(data / "bench.json", json.dumps(told))


if __name__ == "__main__":
    main()
