"""The api and worker processes of `chatd dev`: started again when they crash, stopped in time."""

import asyncio
import re
import select
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import typer

from chatd.dev.children import Child, Spec, start_child

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
STEADY_S = 30.0
"""Who ran this long did not crash because of how it was started: begin with a short pause."""

GRACE_S = 8.0
LOOK_S = 0.3
PROBLEMS_AT_ONCE = 20

_LEVEL = re.compile(r"\S+ \[(\w+)\s*\] ")


class Processes:
    """`chatd` commands as children of ours, each with its log in `logs`."""

    def __init__(self, environment: Mapping[str, str], logs: Path, *, lock: int) -> None:
        self._environment = environment
        self._logs = logs
        self._lock = lock
        self._children: dict[str, Child] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, *arguments: str, opened: tuple[int, ...] = ()) -> Child:
        """Start `chatd ARGUMENTS…` with those descriptors; its last log is kept as `.old`."""
        log = self._logs / f"{name}.log"
        if log.exists():
            log.replace(log.with_suffix(".log.old"))
        # The command that started us, so that a `ps` shows what each of them is.
        command = (sys.executable, Path(sys.argv[0]).absolute(), *arguments)
        spec = Spec(
            command,
            log=log,
            env=self._environment,
            grace=GRACE_S,
            keep_open=(self._lock, *opened),
        )
        self._children[name] = start_child(spec)
        return self._children[name]

    def keep(self) -> None:
        """From now on a crash is answered with a new start, and problems are shown."""
        for name, child in self._children.items():
            if not child.running:
                raise child.failure("ended")
            self._tasks.append(asyncio.create_task(self._keep(name)))
            self._tasks.append(asyncio.create_task(_show_problems(name, child.spec.log)))

    async def stop(self) -> None:
        """Ask all of them at once; who takes longer than its grace is killed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(child.stop() for child in self._children.values()))

    def kill(self) -> None:
        """For who does not want to wait."""
        for child in self._children.values():
            child.kill()

    async def _keep(self, name: str) -> None:
        pause = FIRST_PAUSE_S
        while True:
            child, began = self._children[name], time.monotonic()
            status = await child.wait()
            if time.monotonic() - began > STEADY_S:
                pause = FIRST_PAUSE_S
            await child.stop()
            say(f"{name} ended {_words(status)}; starting it again in {pause:g} s")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)
            self._children[name] = start_child(child.spec)


async def _show_problems(name: str, log: Path) -> None:
    """Warnings and errors of a log, as they are written; the file has everything."""
    with log.open("rb") as lines:
        wanted = False
        while True:
            shown = 0
            for line in lines.read().decode(errors="replace").splitlines():
                level = _LEVEL.match(line)
                # A line without a level belongs to the one before: a traceback.
                wanted = level[1] in {"warning", "error", "critical"} if level else wanted
                shown += wanted
                if wanted and shown <= PROBLEMS_AT_ONCE:
                    say(f"{name} | {line}")
            if shown > PROBLEMS_AT_ONCE:
                say(f"{name} | {shown - PROBLEMS_AT_ONCE} lines more in {log}")
            await asyncio.sleep(LOOK_S)


def say(text: str) -> None:
    """Print, unless nobody reads our output: we have processes to look after, and never wait."""
    with suppress(BrokenPipeError):
        if select.select([], [sys.stdout], [], 0)[1]:
            typer.echo(text[: select.PIPE_BUF - 1])


def _words(status: int) -> str:
    return f"with status {status}" if status >= 0 else f"by signal {-status}"
