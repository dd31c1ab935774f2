"""The peers' harness with `bench.model` for a model: `python -m bench.harness OPTIONS`."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench import shared

ROOT = Path(__file__).resolve().parent.parent


class _Popen(subprocess.Popen[bytes]):
    def __init__(self, args: list[str], **options: Any) -> None:
        if Path(args[1]).name == "fake_llm.py":
            args, options["cwd"] = [args[0], "-m", "bench.model", *args[2:]], ROOT
        super().__init__(args, **options)


def main() -> None:
    subprocess.Popen = _Popen
    sys.path.insert(0, str(shared.FOLDER))
    runpy.run_path(str(shared.FOLDER / "bench.py"), run_name="__main__")


if __name__ == "__main__":
    main()
