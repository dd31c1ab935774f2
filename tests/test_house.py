"""House rules that no linter knows."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = ("chatd", "workers", "alembic", "bench")
MAX_MODULE, MAX_FUNCTION = 300, 40
NAMELESS = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
LEFT_OVER = re.compile(r"\b(TODO|FIXME|XXX)\b")
MACHINE = re.compile(r"(?<![\w./-])/(root|work|home)/[\w.]")
LOCKS = ("requirements.lock", "docker/requirements.lock", "docker/build.lock")


def committed() -> list[Path]:
    """Every file of the project, as git knows them."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


def modules() -> Iterator[tuple[Path, str]]:
    """Our own modules, without migrations: those are lists that a tool wrote."""
    for path in committed():
        place = path.relative_to(ROOT)
        if path.suffix == ".py" and place.parts[0] in CODE and "versions" not in place.parts:
            yield place, path.read_text()


def test_modules_are_short_and_say_what_they_are() -> None:
    long = {str(p): n for p, text in modules() if (n := text.count("\n")) > MAX_MODULE}
    silent = [str(p) for p, text in modules() if ast.get_docstring(ast.parse(text)) is None]
    assert (long, silent) == ({}, [])


def test_functions_are_short() -> None:
    long = {
        f"{path}:{node.name}": lines
        for path, text in modules()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION
    }
    assert long == {}


def test_modules_are_named_for_what_they_hold() -> None:
    assert [str(path) for path, _ in modules() if path.stem in NAMELESS] == []


def test_nothing_is_left_for_later() -> None:
    left = [str(path) for path, text in modules() if LEFT_OVER.search(text)]
    assert left == []


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    texts = {".py", ".md", ".toml", ".yaml", ".json", ".mako", ".lock", ".ini", ".env", ""}
    named = [
        str(path.relative_to(ROOT))
        for path in committed()
        if path.suffix in texts and MACHINE.search(path.read_text(errors="replace"))
    ]
    assert named == []


def test_locks_have_hashes_and_no_addresses() -> None:
    for name in LOCKS:
        text = (ROOT / name).read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text


def test_npm_locks_have_no_registry_addresses() -> None:
    for path in committed():
        if path.name == "package-lock.json":
            assert '"resolved"' not in path.read_text(), path
