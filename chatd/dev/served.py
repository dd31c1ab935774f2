"""The parent's side of a demo server: a module of ours as a child process."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from chatd.dev.children import Child, Spec, start_child, wait_until_ready

# So that `python -m chatd...` finds us from any folder, installed or not.
_ROOT = Path(__file__).parents[2]


class _Address(BaseModel):
    url: str
    port: int


@dataclass(frozen=True)
class _Program:
    module: str
    arguments: tuple[str, ...]
    folder: Path


class Served:
    """A running demo server. Its methods are not tied to an event loop; keep to the main thread."""

    def __init__(self, program: _Program, child: Child, address: _Address) -> None:
        self._program = program
        self._child = child
        self.url = address.url
        self.port = address.port

    @classmethod
    async def start(cls, module: str, *arguments: str, folder: Path, port: int = 0) -> "Served":
        """Run `python -m MODULE --port PORT ARGUMENTS…`; its log goes to `folder`."""
        os.makedirs(folder, exist_ok=True)
        program = _Program(module, arguments, folder)
        return cls(program, *await _launch(program, port))

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child.running

    async def stop(self) -> None:
        await self._child.stop()

    def kill(self) -> None:
        """SIGKILL it, as a crash would."""
        self._child.kill()

    async def restart(self) -> None:
        """Stop it, if it runs, and start it again on the same port."""
        await self.stop()
        self._child, _ = await _launch(self._program, self.port)


async def _launch(program: _Program, port: int) -> tuple[Child, _Address]:
    name = program.module.rpartition(".")[2]
    out = program.folder / f"{name}.out"
    out.unlink(missing_ok=True)
    command = (sys.executable, "-m", program.module, "--port", str(port), *program.arguments)
    log = program.folder / f"{name}.log"
    child = start_child(Spec(command, log=log, out=out, cwd=_ROOT, grace=5))
    address: list[_Address] = []

    async def first_line() -> None:
        line, complete, _ = out.read_bytes().partition(b"\n")
        if not complete:
            raise BlockingIOError
        address.append(_Address.model_validate_json(line))

    try:
        await wait_until_ready(child, first_line, (BlockingIOError,))
    except BaseException:
        await child.stop()
        raise
    return child, address[0]
