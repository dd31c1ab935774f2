"""Two checkouts in turn, a second each: `python -m bench.versus OTHER S1:1 S2a:1 --rounds 10`.

A shared machine's speed moves by half within a minute, more than any change worth measuring. Both
systems stay up and are driven in turn, so that each second of one has a neighbour of the other;
what counts is the median of the ratios of neighbours. Run it in the harness's environment, as
`split`.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any, TextIO, cast

from bench import split

ROOT = Path(__file__).resolve().parent.parent
CPU = ("cpu", "postgres", "valkey", "worker-0", "api-0")
SHOWN = ("added_ttft_p50", "end_lag_p50")
Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", help="a checkout to compare this one with, or `serve`")
    parser.add_argument("cells", nargs="*", help="as S1:64")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--offset", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.other == "serve":
        _serve(options.offset)
        return
    sides = [_Side(Path(options.other), 1), _Side(ROOT, 0)]
    try:
        for cell in options.cells:
            _compare(cell, sides, options.rounds)
    finally:
        for side in sides:
            side.stop()


def _compare(cell: str, sides: "list[_Side]", rounds: int) -> None:
    for side in sides:
        side.drive(cell)
    pairs: list[tuple[Figures, Figures]] = []
    for number in range(rounds):
        # Whoever comes second finds the machine as the first has left it: each is, in turn.
        first, second = sides[number % 2], sides[1 - number % 2]
        ours = {first: first.drive(cell), second: second.drive(cell)}
        pairs.append((ours[sides[0]], ours[sides[1]]))
    sys.stdout.write(f"{cell}, {rounds} rounds: other, this, median ratio\n")
    for name in (*CPU, *SHOWN):
        other, this = (median(pair[side][name] for pair in pairs) for side in (0, 1))
        ratio = median(pair[1][name] / pair[0][name] for pair in pairs)
        sys.stdout.write(f"  {name:15} {other:7.2f} {this:7.2f} {ratio:6.3f}\n")
    sys.stdout.flush()


class _Side:
    """A checkout's own `bench`, with this file in it, so that it drives itself."""

    def __init__(self, tree: Path, offset: int) -> None:
        command = [sys.executable, "-m", "bench.versus", "serve", "--offset", str(offset)]
        self._process = subprocess.Popen(
            command, cwd=tree, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def drive(self, cell: str) -> Figures:
        cast(TextIO, self._process.stdin).write(f"{cell}\n")
        cast(TextIO, self._process.stdin).flush()
        while not (line := cast(TextIO, self._process.stdout).readline()).startswith("{"):
            if not line:
                raise SystemExit("one of the two did not start")
        return cast(Figures, json.loads(line))

    def stop(self) -> None:
        cast(TextIO, self._process.stdin).close()
        self._process.wait(30)


def _serve(offset: int) -> None:
    split.PORT, split.MODEL, split.TOOLS = 9310 + offset, 9110 + offset, 9211 + offset
    with split.running() as system:
        for cell in sys.stdin:
            sys.stdout.write(json.dumps(_figures(system, cell.strip())) + "\n")
            sys.stdout.flush()


def _figures(system: split.System, cell: str) -> dict[str, Any]:
    scenario, conc = cell.split(":")
    before = split.cpu(system)
    result = split.drive(system, scenario, int(conc), 1)
    after = split.cpu(system)
    if result["errors"] or result["bad"]:
        raise SystemExit(f"{cell} failed: {result['errors']} {result['bad']}")
    spent = {name: (after[name] - before[name]) / result["turns"] for name in after}
    return {**spent, "cpu": sum(spent.values()), **{name: result[name] for name in SHOWN}}


if __name__ == "__main__":
    main()
