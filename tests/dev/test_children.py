"""Child processes: how they stop, and what is said about one that fails."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from chatd.dev.children import (
    ChildFailed,
    Spec,
    run_to_end,
    start_child,
    wait_until_ready,
    works_as,
)
from chatd.dev.lock import InUse, hold
from chatd.dev.ports import free_port, listen, on_free_port

DEAF = "trap '' TERM; echo ready; while :; do sleep 0.01; done"


def shell(script: str, log: Path, *, grace: float = 10) -> Spec:
    return Spec(["/bin/sh", "-c", script], log=log, grace=grace)


async def test_a_child_that_will_not_stop_is_killed(tmp_path: Path) -> None:
    child = start_child(shell(DEAF, tmp_path / "log", grace=0.05))

    async def deaf() -> None:
        if b"ready" not in (tmp_path / "log").read_bytes():
            raise BlockingIOError

    await wait_until_ready(child, deaf, (BlockingIOError,))
    await child.stop()
    assert await child.wait() == -signal.SIGKILL


async def test_a_child_that_hangs_still_stops(tmp_path: Path) -> None:
    child = start_child(shell("exec cat /dev/zero >/dev/null", tmp_path / "log"))
    child.send_signal(signal.SIGSTOP)
    await child.stop()
    assert await child.wait() == -signal.SIGTERM


async def test_ctrl_c_in_our_terminal_does_not_reach_a_child(tmp_path: Path) -> None:
    child = start_child(shell("exec sleep 60", tmp_path / "log"))
    assert os.getpgid(child.pid) == child.pid
    assert os.getsid(child.pid) == os.getsid(0)
    child.kill()


async def test_a_failure_shows_the_end_of_the_log(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match="no space left"):
        await run_to_end(shell("echo no space left; exit 3", tmp_path / "log"))


async def test_waiting_for_a_child_that_died_fails_at_once(tmp_path: Path) -> None:
    child = start_child(shell("echo gone; exit 4", tmp_path / "log"))
    await child.wait()

    async def never() -> None:
        raise ConnectionError

    with pytest.raises(ChildFailed, match="status 4"):
        await wait_until_ready(child, never, (ConnectionError,))


async def test_waiting_ends_after_a_while(tmp_path: Path) -> None:
    child = start_child(shell("exec sleep 60", tmp_path / "log"))

    async def never() -> None:
        raise ConnectionError

    with pytest.raises(ChildFailed, match="was not ready"):
        await wait_until_ready(child, never, (ConnectionError,), within=0.02)
    child.kill()


def test_a_watcher_signals_when_its_parent_is_killed() -> None:
    script = (
        "import signal, subprocess, sys; from chatd.dev.children import watch_parent;"
        "sleeper = subprocess.Popen(['sleep', '60']); watch_parent(sleeper.pid, signal.SIGTERM);"
        "print(sleeper.pid, flush=True); sleeper.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        sleeper = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    _, alive = psutil.wait_procs([sleeper], timeout=10)
    assert alive == []


async def test_a_child_keeps_the_lock_it_was_given(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    async with hold(lock) as held:
        spec = Spec(["/bin/sleep", "60"], log=tmp_path / "log", keep_open=(held,))
        child = start_child(spec)
    with pytest.raises(InUse):
        async with hold(lock, within=0.02):
            pass
    child.kill()
    async with hold(lock, within=5):
        pass


async def test_a_server_that_lost_its_port_gets_another() -> None:
    tried: list[int] = []

    async def launch(port: int) -> int:
        tried.append(port)
        if len(tried) == 1:
            raise ChildFailed("bind: Address already in use")
        return port

    assert await on_free_port(launch) == tried[1]
    with pytest.raises(ChildFailed):
        await on_free_port(launch=_always_taken, port=1234)


async def _always_taken(port: int) -> int:
    raise ChildFailed("bind: Address already in use")


def test_a_free_port_is_none_the_kernel_hands_out() -> None:
    assert 20_000 <= free_port() < 32_000


def test_a_taken_port_is_refused_if_it_was_asked_for() -> None:
    with listen() as taken, pytest.raises(OSError, match="in use"):
        listen(taken.getsockname()[1])


def test_what_a_user_may_do_is_asked_of_the_kernel() -> None:
    assert not works_as("nobody", ["/no/such/program"])
