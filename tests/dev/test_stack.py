"""The whole stack: together, once per folder, and never longer than its parent."""

import json
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from chatd.dev.lock import InUse
from chatd.dev.stack import start_stack

PARENT = """
import asyncio, json, sys
from pathlib import Path
from chatd.dev.stack import start_stack

async def main():
    stack = await start_stack(Path(sys.argv[1]), model=True, durable=False)
    services = (stack.postgres, stack.valkey, stack.model)
    print(json.dumps([service.pid for service in services]), flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@contextmanager
def a_parent(folder: Path) -> Generator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A process with a whole stack below it, and that stack's processes."""
    command = [sys.executable, "-c", PARENT, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = json.loads(parent.stdout.readline())
        children = [psutil.Process(pid) for pid in pids]
        descendants = [*children, *children[0].children()]
        try:
            yield parent, descendants
        finally:
            parent.kill()
            psutil.wait_procs(descendants, timeout=10)


def test_nothing_outlives_a_parent_that_was_killed(used_state: Path) -> None:
    with a_parent(used_state) as (parent, descendants):
        assert len(descendants) > 3
        parent.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(descendants, timeout=10)
    assert alive == []


async def test_a_stack_starts_at_once_where_a_killed_one_was(used_state: Path) -> None:
    with a_parent(used_state) as (parent, _):
        parent.send_signal(signal.SIGKILL)
        stack = await start_stack(used_state, durable=False)
    await stack.close()


async def test_everything_stops_with_it(used_state: Path) -> None:
    stack = await start_stack(used_state, model=True, demo_mcp=True, durable=False)
    services = [stack.postgres, stack.valkey, stack.model, stack.demo_mcp]
    assert all(service and service.running for service in services)
    await stack.close()
    assert not any(service and service.running for service in services)


async def test_only_one_stack_runs_in_a_folder(used_state: Path) -> None:
    stack = await start_stack(used_state, durable=False)
    with pytest.raises(InUse):
        await start_stack(used_state, durable=False)
    await stack.close()


async def test_what_has_a_url_is_not_started(state: Path) -> None:
    stack = await start_stack(state, database_url="postgresql://a/b", redis_url="redis://c")
    assert (stack.database_url, stack.redis_url) == ("postgresql://a/b", "redis://c")
    assert (stack.postgres, stack.valkey, stack.model, stack.demo_mcp) == (None,) * 4
    await stack.close()


async def test_if_one_cannot_start_none_runs(state: Path) -> None:
    (state / "logs").write_text("a file where a folder should be")
    with pytest.raises(FileExistsError):
        await start_stack(state, model=True, durable=False)
    children = psutil.Process().children(recursive=True)
    assert not [child for child in children if str(state) in " ".join(child.cmdline())]
    await (await start_stack(state, durable=False)).close()
