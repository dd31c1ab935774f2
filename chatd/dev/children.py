"""Child processes that stop in order, and never outlive the process that started them."""

import asyncio
import ctypes
import math
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc: ctypes.CDLL | None = ctypes.CDLL(None) if sys.platform == "linux" else None

# The shell reads until our end of the pipe is gone, which no way of dying can prevent.
_WATCH = 'cat >/dev/null; kill -s "$1" "$2" 2>/dev/null'


class ChildFailed(RuntimeError):
    """A child ended, or did not become ready; the message carries the end of its log."""


@dataclass(frozen=True)
class Spec:
    """How to start one child."""

    command: Sequence[str | Path]
    log: Path
    # Sent when the parent dies, and first when we stop it ourselves.
    stop_signal: signal.Signals = signal.SIGTERM
    grace: float = 10.0
    cwd: Path | None = None
    # Another user to run as; only root may say.
    user: str | None = None
    env: Mapping[str, str] | None = None
    # Descriptors the child keeps open, a lock for example.
    keep_open: tuple[int, ...] = ()
    # Where its standard output goes, if not into the log.
    out: Path | None = None


class Child:
    """A running child, not tied to an event loop. `start_child` has a rule about threads."""

    def __init__(
        self,
        spec: Spec,
        process: subprocess.Popen[bytes],
        watcher: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self.spec = spec
        self._process = process
        self._watcher = watcher

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def send_signal(self, number: signal.Signals) -> None:
        """SIGSTOP and SIGCONT make a service hang and go on."""
        self._process.send_signal(number)

    async def wait(self) -> int:
        """The exit status, for as long as it takes."""
        await self._ended(within=math.inf)
        return self._process.wait()

    async def stop(self) -> None:
        """Ask, wait, then kill. Harmless on a child that has ended."""
        self._process.send_signal(self.spec.stop_signal)
        self._process.send_signal(signal.SIGCONT)
        if not await self._ended(within=self.spec.grace):
            self._process.kill()
        self._reap()

    def kill(self) -> None:
        """SIGKILL, as a crash would; returns when it is gone."""
        self._process.kill()
        self._reap()

    def failure(self, what: str) -> ChildFailed:
        name = Path(self.spec.command[0]).name
        return ChildFailed(f"{name} {what}; the end of {self.spec.log}:\n{_tail(self.spec.log)}")

    async def _ended(self, *, within: float) -> bool:
        # Polls, since asyncio's own process support is tied to one loop: at first often.
        began = time.monotonic()
        while True:
            if not self.running:
                return True
            passed = time.monotonic() - began
            if passed > within:
                return False
            await asyncio.sleep(min(max(passed / 20, 0.003), 0.25))

    def _reap(self) -> None:
        self._process.wait()
        if self._watcher is not None:
            self._watcher.kill()
            self._watcher.communicate()
            self._watcher = None


def start_child(spec: Spec) -> Child:
    """Start a child in a process group of its own: Ctrl-C reaches only us, and we stop in order.

    Linux signals it when the *thread* that started it ends: call this from the main thread (an
    event loop there is fine), never from a worker thread.
    """
    with spec.log.open("ab") as log, (spec.out or spec.log).open("ab") as out:
        process = subprocess.Popen(
            [str(part) for part in spec.command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=log,
            cwd=spec.cwd,
            env=spec.env,
            user=spec.user,
            group=_group(spec.user),
            extra_groups=None if spec.user is None else [],
            pass_fds=spec.keep_open,
            process_group=0,
            preexec_fn=_die_with_parent(spec.stop_signal),
        )
    watcher = None if _libc else watch_parent(process.pid, spec.stop_signal)
    return Child(spec, process, watcher)


async def run_to_end(spec: Spec) -> None:
    """Run a child that does one thing, and raise if it does not succeed."""
    child = start_child(spec)
    try:
        status = await child.wait()
    finally:
        await child.stop()
    if status != 0:
        raise child.failure(f"ended with status {status}")


async def wait_until_ready(
    child: Child,
    probe: Callable[[], Awaitable[object]],
    not_yet: tuple[type[Exception], ...],
    *,
    within: float = 60.0,
) -> None:
    """Try `probe` until it does not raise one of `not_yet`; anything else it raises is final."""
    deadline = time.monotonic() + within
    while True:
        if not child.running:
            raise child.failure(f"ended with status {await child.wait()}")
        try:
            await probe()
            return
        except not_yet:
            if time.monotonic() > deadline:
                raise child.failure(f"was not ready in {within:.0f} s") from None
        await asyncio.sleep(0.01)


def watch_parent(pid: int, stop_signal: signal.Signals) -> subprocess.Popen[bytes]:
    """Signal `pid` when we die, where the kernel cannot (macOS): a shell waits on our pipe."""
    return subprocess.Popen(
        ["/bin/sh", "-c", _WATCH, "watch", stop_signal.name.removeprefix("SIG"), str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        process_group=0,
    )


def works_as(user: str, command: Sequence[str | Path]) -> bool:
    """Whether that user can do this: what it may reach is a question only the kernel answers."""
    try:
        done = subprocess.run(
            [str(part) for part in command],
            check=False,
            capture_output=True,
            cwd="/",
            user=user,
            group=_group(user),
            extra_groups=[],
        )
    except OSError:
        return False
    return done.returncode == 0


def _group(user: str | None) -> int | None:
    return None if user is None else pwd.getpwnam(user).pw_gid


def _die_with_parent(stop_signal: signal.Signals) -> Callable[[], None] | None:
    if _libc is None:
        return None
    libc, parent = _libc, os.getpid()

    def ask_kernel() -> None:
        # Runs between fork and exec, after the change of user: that would drop the request.
        libc.prctl(_PR_SET_PDEATHSIG, int(stop_signal), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask_kernel


def _tail(log: Path, size: int = 2000) -> str:
    return log.read_bytes()[-size:].decode(errors="replace").strip()
