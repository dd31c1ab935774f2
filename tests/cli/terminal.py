"""`chatd` in a terminal, with somebody who reads and types."""

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.running import CHATD, environment

PATIENCE_S = 60
"""A command that says nothing for so long says nothing any more."""

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


class Terminal:
    """What is seen is what was written, without colours and cursor movements."""

    def __init__(self, process: subprocess.Popen[bytes], ours: int) -> None:
        self.process = process
        self._ours = ours
        self._raw = b""
        self._from = 0

    @classmethod
    @contextmanager
    def running(cls, *words: str | Path) -> "Generator[Terminal]":
        """It is over when the block ends."""
        ours, theirs = pty.openpty()
        command = [CHATD, *words]
        env = environment(TERM="xterm")
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as its:
            os.close(theirs)
            try:
                yield cls(its, ours)
            finally:
                its.kill()
                os.close(ours)

    @property
    def seen(self) -> str:
        return _ESCAPES.sub("", self._raw.decode(errors="replace"))

    def expect(self, words: str) -> None:
        """Read on until they come, after what was expected before."""
        while (found := self.seen.find(words, self._from)) < 0:
            assert self._read(), f"{words!r} does not come: {self.seen[self._from :]!r}"
        self._from = found + len(words)

    def type(self, line: str) -> None:
        os.write(self._ours, f"{line}\n".encode())

    def end_of_input(self) -> None:
        """Ctrl-D on an empty line."""
        os.write(self._ours, b"\x04")

    def interrupt(self) -> None:
        """Ctrl-C, once the command waits for something.

        A signal between a prompt and the read behind it is heard only with the next key.
        """
        stat = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/stat")
        deadline = time.monotonic() + PATIENCE_S
        while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < deadline, "it is always busy"
            time.sleep(0.01)
        self.process.send_signal(signal.SIGINT)

    def finish(self) -> int:
        """Read to the end; the exit status."""
        while self._read():
            pass
        return self.process.wait()

    def _read(self) -> bool:
        ready, _, _ = select.select([self._ours], [], [], PATIENCE_S)
        assert ready, f"nothing comes any more after {self.seen!r}"
        try:
            read = os.read(self._ours, 65_536)
        except OSError:  # how a terminal says that nobody writes any more
            return False
        self._raw += read
        return bool(read)
