"""Where a cell's CPU goes: per process, and with --spy per function (py-spy's raw stacks).

`$BENCH_VENVS/core/bin/python -m bench.split S1:64 S3:200 --spy stacks`
"""

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from bench import adapter, shared

# Not those of the harness: it may be running.
PORT, MODEL, TOOLS = 9310, 9110, 9211
START_S = 90.0
SPIED = ("worker-0", "api-0")
SHOWN = ("turns_s", "added_ttft_p50", "added_ttft_p99", "pre_llm_p50", "end_lag_p50", "cpu_ms_turn")


@dataclass(frozen=True)
class System:
    pid: int
    headers: bytes
    pids: dict[str, int]
    """Of its processes, by name."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", nargs="+", help="as S1:64")
    parser.add_argument("--secs", type=float, default=4)
    parser.add_argument("--reps", type=int, default=1)
    parser.add_argument("--spy", default="", help="prefix of the files with stacks")
    options = parser.parse_args()
    with running() as system:
        for cell in options.cells:
            scenario, conc = cell.split(":")
            drive(system, scenario, min(int(conc), 16), 1)
            for _ in range(options.reps):
                _measure(system, scenario, int(conc), options.secs, options.spy)


@contextmanager
def running() -> Generator[System]:
    """A chatd, its model and its tool server."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        yield _start(processes)
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in reversed(processes):
            process.wait(15)


def _start(processes: list[subprocess.Popen[bytes]]) -> System:
    model = [sys.executable, "-m", "bench.model", "--port", str(MODEL)]
    tools = [sys.executable, str(shared.FOLDER / "tool_server.py"), "--kind", "fast"]
    processes.append(subprocess.Popen(model))
    processes.append(subprocess.Popen([*tools, "--port", str(TOOLS)]))
    spec = adapter.system()(PORT, TOOLS)
    processes.append(subprocess.Popen(spec["argv"], cwd=spec["cwd"]))
    _until_up(MODEL, "/v1/models")
    _until_up(TOOLS, "/count")
    _until_up(PORT, "/readyz")
    data = adapter.RUN / f"chatd-{PORT}"
    headers = adapter.configure(PORT, data, TOOLS, model_port=MODEL)
    return System(processes[-1].pid, headers, json.loads((data / "bench.json").read_text())["pids"])


def _until_up(port: int, path: str) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2).read()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing answers on port {port}")


def drive(system: System, scenario: str, conc: int, secs: float) -> dict[str, Any]:
    """The harness's figures of a cell."""
    driver = shared.load("drive")
    driver.ASK.update(adapter.ASK)
    ports = {"llm_port": MODEL, "tool_port": TOOLS}
    return uvloop.run(
        driver.drive(
            "chatd",
            "chatd",
            PORT,
            system.pid,
            scenario,
            conc,
            secs,
            ports,
            headers=system.headers,
        )
    )


def _measure(system: System, scenario: str, conc: int, secs: float, spy: str) -> None:
    watching = [
        _spy(system.pids[name], f"{spy}-{scenario}-{conc}-{name}.raw", int(secs))
        for name in SPIED
        if spy
    ]
    _calls()
    before = cpu(system)
    result = drive(system, scenario, conc, secs)
    turns = max(1, result["turns"])
    after = cpu(system)
    for process in watching:
        process.wait()
    split = {name: round((after[name] - before[name]) / turns, 2) for name in after}
    shown = " ".join(f"{name} {result[name]}" for name in SHOWN)
    streams = f" streams/CPU-s {result['streams_per_cpu']}" if "streams_per_cpu" in result else ""
    bad = sum(result["errors"].values()) + result["bad"]
    sys.stdout.write(
        f"{scenario}:{conc} {shown}{streams} others {result['foreign_cores']} failed {bad}\n"
        f"    CPU-ms/turn {split}, requests to tool servers {_calls() / turns:.2f}\n"
    )
    sys.stdout.flush()


def _calls() -> int:
    """Requests that the tool server has had since it was last asked."""
    url = f"http://127.0.0.1:{TOOLS}/count?reset=1"
    with urllib.request.urlopen(url, timeout=2) as answer:
        return sum(json.load(answer).values())


def cpu(system: System) -> dict[str, float]:
    """CPU-ms used so far; finer than the harness's own figure, which has ticks of 10 ms."""
    tree = shared.load("drive").tree
    return {name: sum(map(_spent, tree(pid))) for name, pid in system.pids.items()}


def _spent(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6
    except OSError:
        return 0.0


def _spy(pid: int, out: str, secs: int) -> subprocess.Popen[bytes]:
    program = Path(sys.executable).with_name("py-spy")
    command: Sequence[str] = (
        *(str(program), "record", "-p", str(pid), "-o", out),
        *("-d", str(max(1, secs - 1)), "-r", "200", "-f", "raw", "--nolineno"),
    )
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[1])
    main()
