"""Where a cell's CPU goes: per process, and with --spy per function (py-spy).

Runs in the harness's environment: `$BENCH_VENVS/core/bin/python bench/split.py S1:64 --spy`.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [
    str(HERE.parent),
    os.environ.get("SHARED_BENCH", str(HERE.parents[1] / "shared/bench")),
]

import uvloop
import drive as driver
from bench import adapter

PORT, MODEL, TOOLS = 9310, 9110, 9211


def cpu(pid: int) -> float:
    return driver.cpu_s(driver.tree(pid))


def start(argv, **kw):
    return subprocess.Popen(argv, **kw)


def up(port, path="/"):
    import urllib.error
    import urllib.request

    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2).read()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing on {port}")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("cells", nargs="+")
    ap.add_argument("--secs", type=float, default=4)
    ap.add_argument("--spy", default="", help="prefix of output files: spy while driving")
    ap.add_argument("--reps", type=int, default=1)
    a = ap.parse_args()
    shared = Path(driver.__file__).parent
    procs = [
        start([sys.executable, str(shared / "fake_llm.py"), "--port", str(MODEL)]),
        start([sys.executable, str(shared / "tool_server.py"), "--kind", "fast", "--port", str(TOOLS)]),
    ]
    spec = adapter.system()(PORT, TOOLS)
    procs.append(start(spec["argv"], cwd=spec["cwd"]))
    try:
        up(MODEL, "/v1/models"); up(TOOLS, "/count"); up(PORT, "/readyz")
        headers = adapter.configure(PORT, adapter.RUN / f"chatd-{PORT}", TOOLS, model_port=MODEL)
        data = adapter.RUN / f"chatd-{PORT}"
        pids = json.loads((data / "bench.json").read_text())["pids"]
        driver.ASK.update(adapter.ASK)
        cfg = {"llm_port": MODEL, "tool_port": TOOLS}

        def cell(sc, conc, secs):
            return uvloop.run(driver.drive("chatd", "chatd", PORT, procs[-1].pid, sc, conc, secs, cfg, headers=headers))

        for c in a.cells:
            sc, conc = c.split(":")
            cell(sc, min(int(conc), 16), 1)
            for rep in range(a.reps):
                spies = []
                if a.spy:
                    for name in ("worker-0", "api-0"):
                        spies.append(start([str(Path(sys.executable).parent / "py-spy"), "record", "-p", str(pids[name]), "-d", str(int(a.secs) - 1 or 1), "-r", "200", "-f", "raw", "-o", f"{a.spy}-{sc}-{conc}-{name}.raw", "--nolineno"] , stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
                before = {n: cpu(p) for n, p in pids.items()}
                r = cell(sc, int(conc), a.secs)
                after = {n: cpu(p) for n, p in pids.items()}
                for s in spies:
                    s.wait()
                n = r["turns"]
                print(c, {k: r[k] for k in ("turns_s", "added_ttft_p50", "added_ttft_p99", "pre_llm_p50", "relay_p50", "end_lag_p50", "cpu_ms_turn", "foreign_cores", "errors", "bad")}, r.get("streams_per_cpu"))
                print("   ms/turn:", {k: round((after[k] - before[k]) * 1000 / n, 2) for k in pids}, flush=True)
    finally:
        for p in procs[::-1]:
            p.terminate()
        for p in procs[::-1]:
            p.wait(15)


main()
