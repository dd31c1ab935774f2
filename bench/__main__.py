"""`make bench`: the peers' harness if it is beside this checkout, then our own cells."""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from bench import alone, cells, shared

HERE = Path(__file__).resolve().parent
PEERS = "direct,null,arq-fast,diy,ai-shared,chatd"
CELLS = "S1:1,S1:16,S1:64,S2:1,S2:16,S3:200,S4:1,S4:16"
QUICK_CELLS = "S1:1,S1:64,S2:16"
TURNS, QUICK_TURNS = 200, 40


def main() -> None:
    """Unknown options go to the harness, as `--reps 1 --secs 3`."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="one repetition of a few cells")
    parser.add_argument(
        "--own", nargs="*", choices=[*cells.CELLS, "alone"], help="only these cells of our own"
    )
    options, harness = parser.parse_known_args()
    signal.signal(signal.SIGTERM, _stop)
    there = (shared.FOLDER / "bench.py").is_file()
    if there and options.own is None:
        _run_harness(options.quick, harness)
    own = options.own or list(cells.CELLS)
    if not there and not options.own:
        own.insert(0, "alone")
    uvloop.run(_run_own(own, QUICK_TURNS if options.quick else TURNS))


def _stop(_number: int, _frame: object) -> None:
    raise SystemExit(1)


def _run_harness(quick: bool, options: Sequence[str]) -> None:
    """In its own environment, which `bench/environments` fills."""
    venvs = Path(os.environ.get("BENCH_VENVS", HERE / ".venvs")).resolve()  # noqa: TID251
    env = {
        **os.environ,  # noqa: TID251
        "BENCH_VENVS": str(venvs),
        "BENCH_ADAPTER": str(HERE / "adapter.py"),
        "BENCH_PYTHON": sys.executable,
        "SHARED_BENCH": str(shared.FOLDER),
        "PATH": f"{venvs / 'bin'}:{os.environ.get('PATH', os.defpath)}",  # noqa: TID251
    }
    subprocess.run([HERE / "environments"], env=env, check=True)
    chosen = ["--peers", PEERS, "--cells", QUICK_CELLS if quick else CELLS]
    chosen += ["--reps", "1"] if quick else []
    out = ["--out", str(HERE / "results.jsonl")]
    command = [str(venvs / "core/bin/python"), "-m", "bench.harness"]
    (HERE / "results.jsonl").unlink(missing_ok=True)
    harness = subprocess.Popen([*command, *chosen, *out, *options], env=env, cwd=HERE.parent)
    try:
        if harness.wait():
            raise SystemExit(harness.returncode)
    finally:
        harness.terminate()  # it ends what it started
        harness.wait()


async def _run_own(names: Sequence[str], turns: int) -> None:
    task = asyncio.current_task()
    if task:  # so that what was started ends with us
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    for name in names:
        table = alone.compare(turns) if name == "alone" else cells.measure(name, turns)
        sys.stdout.write(await table)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
