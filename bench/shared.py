"""The peers' harness beside this checkout: where it is, and its modules."""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FOLDER = Path(os.environ.get("SHARED_BENCH", HERE.parents[1] / "shared/bench"))  # noqa: TID251


def load(name: str) -> Any:
    """One of its modules. They import each other by bare name, so their folder goes on the path."""
    if str(FOLDER) not in sys.path:
        sys.path.insert(0, str(FOLDER))
    return importlib.import_module(name)
