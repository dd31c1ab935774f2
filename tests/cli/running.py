"""`chatd` commands as processes, and what they say."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil

CHATD = Path(sys.executable).with_name("chatd")
BASE = "/api/experimental"


def environment(**more: str) -> dict[str, str]:
    """Ours without what would change what `chatd` does."""
    ours = os.environ  # noqa: TID251 - the commands inherit it
    theirs = ("CHATD_", "OPENAI_")
    return {name: value for name, value in ours.items() if not name.startswith(theirs)} | more


def run(*arguments: str | Path, said: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """A command to its end; `said` is what it reads."""
    return subprocess.run(
        [CHATD, *arguments],
        input=said,
        env=environment(**more),
        capture_output=True,
        text=True,
        check=False,
    )


class Dev:
    """A running `chatd dev` in a session of its own."""

    def __init__(self, process: subprocess.Popen[str], data: Path) -> None:
        self.process = process
        self.data = data
        self.said: list[str] = []

    @classmethod
    @contextmanager
    def started(cls, data: Path, *arguments: str, **more: str) -> "Generator[Dev]":
        """It is ready inside the block, and gone with all it started after it."""
        command = [CHATD, "dev", "--port", "0", "--data-dir", data, *arguments]
        with subprocess.Popen(
            command,
            env=environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            dev = cls(process, data)
            try:
                dev.wait_for("Ctrl-C stops everything")
                yield dev
            finally:
                dev.stop()

    def wait_for(self, words: str) -> str:
        """Its next line with these words; an assertion fails when it ends before."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if words in line:
                return line
        raise AssertionError("".join(self.said))

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Its exit status, when it and everything it started has ended."""
        descendants = self.descendants()
        self.process.send_signal(number)
        status = self.process.wait()
        _, alive = psutil.wait_procs(descendants, timeout=20)
        assert alive == []
        return status

    def descendants(self) -> list[psutil.Process]:
        if self.process.poll() is not None:
            return []
        return psutil.Process(self.process.pid).children(recursive=True)

    def processes(self, wanted: str) -> list[psutil.Process]:
        """What it started with these words on the command line."""
        return [each for each in self.descendants() if wanted in " ".join(each.cmdline())]

    def described(self) -> dict[str, str]:
        return json.loads((self.data / "dev.json").read_text())

    def http(self, *, admin: bool = False) -> httpx2.Client:
        """A client with one of its tokens; paths begin after the API's prefix."""
        described = self.described()
        token = described["admin_token" if admin else "member_token"]
        return httpx2.Client(
            base_url=described["url"] + BASE,
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
            verify=False,
            timeout=60,
        )

    def ask(self, text: str, **more: Any) -> list[dict[str, Any]]:
        """The events of a new chat's first turn."""
        body = {"content": [{"type": "text", "text": text}], **more}
        with self.http() as http:
            answer = http.post("/chats", json=body, headers={"Accept": "text/event-stream"})
        assert answer.status_code == 201, answer.text
        lines = answer.text.splitlines()
        return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
